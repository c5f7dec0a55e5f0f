"""The tests of this folder with the real pycuda, built where it is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[3]


@pytest.mark.slow
def test_with_the_real_pycuda():
    environment = dict(os.environ)
    if PathFinder.find_spec("pycuda") is None:  # what is installed, not the stand-in of this run
        tag = f"edgeplan-pycuda-cp{sys.version_info[0]}{sys.version_info[1]}"
        wheels = Path(tempfile.gettempdir()) / tag
        if not list(wheels.glob("*.whl")):
            command = [str(ROOT / "scripts/gpu/build_pycuda.sh"), str(wheels)]
            subprocess.run(command, check=True, env={**environment, "PYTHON": sys.executable})
        site = wheels / "site"
        if not site.exists():
            (wheel,) = wheels.glob("*.whl")
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
            subprocess.run([*command, str(site), str(wheel)], check=True)
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-k", "installed"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(FOLDER)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
