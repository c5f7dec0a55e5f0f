"""Import direction (docs/style.md section 2), and what the edge side must not pull in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("planformat", "runtime_edge", "boards", "builder_host")

ALLOWED = {
    "planformat": set(),
    "runtime_edge": {"planformat"},
    "boards": {"planformat"},
    "builder_host": {"planformat"},
}
# modules that may reach further, each for one reason
EXCEPTIONS = {
    # times kernels in this process, notes clocks and load
    "builder_host/measure/local.py": {"runtime_edge", "boards"},
    "builder_host/measure/remote.py": {"boards"},  # times kernels at the other end of links
    "builder_host/targets/target.py": {"boards"},  # board files
    # builds and runs in one command, as trtexec does
    "builder_host/planexec/inference.py": {"runtime_edge"},
    "builder_host/planexec/exports.py": {"runtime_edge"},
    "builder_host/planexec/main.py": {"runtime_edge"},
    # speaks systemd's notify protocol, as the daemon does
    "boards/cli/agent.py": {"runtime_edge"},
    # run candidates and plans for the agent
    "boards/agent/worker.py": {"runtime_edge"},
    "boards/agent/plan_tasks.py": {"runtime_edge"},
}

# folders that may reach further
FOLDERS = {
    "builder_host/tensorrt": {"runtime_edge"},  # one module for its users, and two halves here
}


def imported_packages(path: Path) -> set[str]:
    """Own packages that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        found |= {name.split(".")[0] for name in names} & set(PACKAGES)
    return found


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_the_right_way(package):
    wrong = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        allowed = {package} | ALLOWED[package] | EXCEPTIONS.get(relative, set())
        allowed |= FOLDERS.get(relative.rpartition("/")[0].removesuffix("/layers"), set())
        extra = imported_packages(path) - allowed
        if extra:
            wrong[relative] = extra
    assert wrong == {}


def test_every_exception_is_still_needed():
    for relative, packages in EXCEPTIONS.items():
        assert packages <= imported_packages(ROOT / relative), relative


def test_every_package_is_typed():
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


@pytest.mark.parametrize("package", ["planformat", "runtime_edge", "builder_host"])
def test_public_names_exist(package):
    code = f"import {package} as p\nfor name in p.__all__: getattr(p, name)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_runtime_loads_without_numpy_and_without_the_builder():
    code = (
        "import runtime_edge, sys\n"
        "from runtime_edge import load\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "bad = {'numpy', 'onnx', 'builder_host', 'pycuda'} & loaded\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
