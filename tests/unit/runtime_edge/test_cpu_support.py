"""The C support code: under a race detector, and for both architectures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder_host.codegen import c_support

STRESS = Path(__file__).parent / "stress.c"
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", *c_support.LINK_FLAGS]
ZIG = [sys.executable, "-m", "ziglang", "cc"]


def compile_stress(compiler: list[str], program: Path) -> None:
    sources = [str(path) for path in (STRESS, *c_support.SOURCE_FILES)]
    include = ["-I", str(c_support.FOLDER)]
    subprocess.run([*compiler, *FLAGS, *include, *sources, "-o", str(program)], check=True)


def test_stress(tmp_path):
    compile_stress([*ZIG, "-O2"], tmp_path / "stress")
    for _ in range(5):
        subprocess.run([str(tmp_path / "stress")], check=True, timeout=120)


@pytest.mark.slow
def test_no_races(tmp_path):
    """ThreadSanitizer; setarch because older ones do not know today's address randomisation."""
    gcc, setarch = shutil.which("gcc"), shutil.which("setarch")
    if gcc is None or setarch is None:
        pytest.skip("needs gcc and setarch")
    program = tmp_path / "stress"
    compile_stress([gcc, "-O1", "-g", "-fsanitize=thread"], program)
    for _ in range(5):
        command = [setarch, os.uname().machine, "-R", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_compiles_for_the_oldest_glibc(tmp_path, architecture):
    flags = ["-O2", "-fPIC", "-shared", "-fno-sanitize=all", "-fvisibility=hidden"]
    sources = [str(path) for path in c_support.SOURCE_FILES]
    target = ["-target", f"{architecture}-linux-gnu.2.28"]
    output = tmp_path / "support.so"
    subprocess.run([*ZIG, *target, *FLAGS, *flags, *sources, "-o", str(output)], check=True)
    assert output.read_bytes()[:4] == b"\x7fELF"
