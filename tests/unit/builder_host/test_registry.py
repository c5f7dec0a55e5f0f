"""Definitions found by place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from builder_host.registry import (
    RegistryError,
    _families_in,
    collect_definitions,
    kernel_families,
    modules_by_claim,
)


@pytest.fixture
def package(tmp_path: Path) -> ModuleType:
    sys.path.insert(0, str(tmp_path))
    try:
        folder = tmp_path / f"found_{tmp_path.name.replace('-', '_')}"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "b.py").write_text("DEFINITION = ['b']\n")
        (folder / "a.py").write_text("DEFINITION = ['a']\n")
        yield __import__(folder.name)
    finally:
        sys.path.remove(str(tmp_path))


def path_of(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent


def test_modules_are_collected_in_alphabetical_order(package: ModuleType) -> None:
    assert collect_definitions(package, "DEFINITION") == {"a": ["a"], "b": ["b"]}


def test_a_prefix_selects_modules(package: ModuleType) -> None:
    (path_of(package) / "lower_x.py").write_text("DEFINITION = ['x']\n")
    assert collect_definitions(package, "DEFINITION", prefix="lower_") == {"x": ["x"]}


def test_a_module_without_definition_is_refused(package: ModuleType) -> None:
    (path_of(package) / "c.py").write_text("")
    with pytest.raises(RegistryError, match=r"\.c must bind DEFINITION"):
        collect_definitions(package, "DEFINITION")


def test_one_definition_in_two_modules_is_refused(package: ModuleType) -> None:
    text = f"from {package.__name__}.a import DEFINITION\n"
    (path_of(package) / "c.py").write_text(text)
    with pytest.raises(RegistryError, match="binds the same DEFINITION as a"):
        collect_definitions(package, "DEFINITION")


def test_names_are_claimed_by_one_module_each(package: ModuleType) -> None:
    found = modules_by_claim(package, "DEFINITION")
    assert {name: module.__name__ for name, module in found.items()} == {
        name: f"{package.__name__}.{name}" for name in "ab"
    }
    (path_of(package) / "c.py").write_text("DEFINITION = ['c', 'b']\n")
    with pytest.raises(RegistryError, match=r"\.b and .*\.c both claim 'b'"):
        modules_by_claim(package, "DEFINITION")


def test_kernel_families_have_unique_names_in_stable_order() -> None:
    names = [family.name for family in kernel_families()]
    assert names == sorted(set(names))
    assert "loop_nest" in names


def test_a_build_imports_the_families_of_its_own_kind_only() -> None:
    script = (
        "import sys; from builder_host.registry import kernel_families; "
        "kernel_families(sys.argv[1]); "
        "print(*[m.split('.')[2] for m in sys.modules if m.endswith('.family') and 'kernels' in m])"
    )
    for kind in ("cpu", "cuda"):
        done = subprocess.run(
            [sys.executable, "-c", script, kind], check=True, capture_output=True, text=True
        )
        own = {type(f).__module__.split(".")[2] for f in kernel_families(kind)}
        assert own <= set(done.stdout.split())
        if kind == "cpu":
            assert not [name for name in done.stdout.split() if name.startswith("cuda_")]


def test_all_families_are_those_of_both_kinds() -> None:
    both = {family.name for kind in ("cpu", "cuda") for family in kernel_families(kind)}
    assert {family.name for family in kernel_families()} == both
    assert all(family.device_kind == "cuda" for family in kernel_families("cuda"))


def test_a_family_in_a_folder_of_the_other_kind_is_refused(package: ModuleType) -> None:
    folder = path_of(package) / "wrong"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    text = "class F:\n    name = 'odd'\n    device_kind = 'cuda'\n\nFAMILY = F()\n"
    (folder / "family.py").write_text(text)
    with pytest.raises(RegistryError, match="'odd' is for 'cuda' devices"):
        _families_in(package, "cpu", other_than="cuda_")
