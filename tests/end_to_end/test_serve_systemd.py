"""The unit files: read by systemd itself, and run under one where that can be had."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys

import pytest
from support.serving import ROOT

UNITS = ROOT / "scripts" / "systemd"


@pytest.fixture
def analyze():
    """Runs systemd-analyze."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("unit", ["edgeplan.service", "edgeplan-agent.service"])
def test_systemd_understands_the_unit(analyze, unit):
    done = analyze("verify", UNITS / unit)
    ours = [line for line in done.stderr.splitlines() if unit in line]
    assert not ours, done.stderr
    assert done.returncode == 0, done.stderr


# What is left open: the network that is served, the GPU's nodes, and code in anonymous files.
@pytest.mark.parametrize(
    ("unit", "most"), [("edgeplan.service", 20), ("edgeplan-agent.service", 25)]
)
def test_the_unit_is_exposed_to_no_more_than_it_needs(analyze, unit, most):
    if analyze("security", "--help").stdout.count("--offline") == 0:
        pytest.skip("this systemd-analyze (older than 250) judges installed units only")
    done = analyze("security", "--offline=true", f"--threshold={most}", UNITS / unit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "num_checks"), [("check_systemd.py", 15), ("check_systemd_agent.py", 9)]
)
def test_life_under_a_real_systemd(script, num_checks):
    if os.geteuid() != 0:
        pytest.skip("starting a systemd in namespaces, or installing a unit, needs root")
    if not os.path.exists("/lib/systemd/systemd"):
        pytest.skip("systemd is not installed: apt-get install systemd")
    if os.path.isdir("/run/systemd/system"):
        try:
            pwd.getpwnam("edgeplan")
        except KeyError:
            pytest.skip("the unit would run under this machine's systemd: it has no user edgeplan")
    probe = ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "mount"]
    allowed = subprocess.run([*probe, "--make-rprivate", "/"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no namespaces here: {allowed.stderr.decode().strip()}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == len(done.stdout.splitlines()) == num_checks
