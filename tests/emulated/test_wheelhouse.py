"""Wheels for a board, installed by the Python of an arm64 system without any index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pip
import pytest
from support.emulated_board import SCRIPTS, require_emulators

pytestmark = [pytest.mark.emulated, pytest.mark.slow]
WHEELHOUSE = SCRIPTS.parent / "wheelhouse"
_WHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import nacl.signing, numpy, serial, runtime_edge, boards.cli.agent, planformat.signing
nacl.signing.SigningKey.generate()
rows = {m.__name__: m.__file__ for m in (numpy, serial, nacl, runtime_edge, boards.cli)}
print(json.dumps({"sum": float(numpy.ones(4, numpy.float32).sum()), "files": rows}))
"""


def collect(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    command = [sys.executable, WHEELHOUSE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    require_emulators()
    folder = tmp_path_factory.mktemp("wheels") / "house"
    done = collect("--board", "virt-aarch64", "--python", "3.11", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


def install(wheels: Path, target: Path, work: Path) -> subprocess.CompletedProcess[str]:
    """Run install.sh where `python3` is the arm64 one, with pip, whose source suits any machine."""
    python = work / "bin" / "python3"
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {SCRIPTS / "run"} "$@"\n')
    python.chmod(0o755)
    library = work / "library"
    if not library.exists():
        shutil.copytree(Path(pip.__file__).parent, library / "pip")
    return subprocess.run(
        ["sh", wheels / "install.sh", "--target", target, "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(library),
        },
    )


def test_the_folder_alone_is_enough(wheels, tmp_path):
    target = tmp_path / "installed"
    done = install(wheels, target, tmp_path)
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(
        [SCRIPTS / "run", "-c", _WHERE, target], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["sum"] == 4.0
    assert all(file.startswith(str(target)) for file in found["files"].values()), found


def test_a_wheel_that_was_changed_is_refused(wheels, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(wheels, changed)
    (wheel,) = changed.glob("pyserial-*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = install(changed, tmp_path / "installed", tmp_path)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--board", "jetson-agx-orin@jetpack5"], "Python is 3.8, edgeplan needs 3.10"),
        (["--board", "virt-aarch64"], "say which Python"),
        (["--board", "toaster"], "toaster"),
    ],
)
def test_what_cannot_be_collected_is_said_before_anything_is_fetched(arguments, text, tmp_path):
    done = collect(*arguments, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert text in done.stderr
    assert not (tmp_path / "out").exists()
