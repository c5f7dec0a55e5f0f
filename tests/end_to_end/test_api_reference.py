"""The API reference: every public name is on it, and every docstring says what its reader needs."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
from dataclasses import is_dataclass
from functools import cache

import pytest
from support.documentation import ROOT

from scripts import api_reference

MODULES = [module for _, _, modules in api_reference.PAGES.values() for module in modules]
# Modules with an `__all__` that the reference leaves out, and where their names are told instead.
ELSEWHERE = {
    "boards.spec": "docs/boards.md: board files",
    "builder_host.importers.caffe.model": "its function is in builder_host",
    "builder_host.importers.onnx": "its function is in builder_host",
    "builder_host.importers.tensorflow.model": "its function is in builder_host",
    "builder_host.importers.uff.model": "its function is in builder_host",
    "builder_host.tensorrt": "docs/migrating-from-tensorrt.md",
    "builder_host.tensorrt.build_enums": "docs/migrating-from-tensorrt.md",
    "builder_host.tensorrt.enums": "docs/migrating-from-tensorrt.md",
    "builder_host.tensorrt.layers": "docs/migrating-from-tensorrt.md",
    "runtime_edge.device.cpu_timing": "inside",
    "runtime_edge.device.cuda_timing": "inside",
    "runtime_edge.serve": "docs/daemon.md: the daemon is a command",
    "runtime_edge.tensorrt": "docs/migrating-from-tensorrt.md",
}


@cache
def page_texts():
    return api_reference.pages()


def functions_of(module):
    """Every public function and method with its name; constructors with the class's docstring."""
    for name, value in api_reference.public_names(module):
        if not inspect.isclass(value):
            if callable(value) and hasattr(value, "__doc__"):
                yield name, value, inspect.getdoc(value) or ""
            continue
        is_plain = not issubclass(value, BaseException | enum.Enum)
        # The fields of a dataclass are on the page with their types.
        if is_plain and name not in api_reference.MADE_BY and not is_dataclass(value):
            own = vars(value).get("__init__", object.__init__)
            if not getattr(value, "_is_protocol", False):
                yield name, own, f"{inspect.getdoc(value)}\n{inspect.getdoc(own)}"
        for member_name, member in api_reference.public_members(value):
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)
            yield f"{name}.{member_name}", function, inspect.getdoc(function) or ""


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_describe_every_argument(module):
    """One argument may be told in the first sentence; more have a section."""
    wanting = {}
    for name, function, text in functions_of(module):
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a type alias
            continue
        names = [one for one in parameters if one not in ("self", "cls", "args", "kwargs")]
        told = text.partition("Args:")[2] if len(names) > 1 else text
        lacks = [one for one in names if not re.search(rf"\b{one}\b", told)]
        if lacks or not text.strip():
            wanting[name] = lacks or "no docstring"
    assert wanting == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page_with_its_docstring(module):
    [text] = [
        page_texts()[uri]
        for uri, (_, _, modules) in api_reference.PAGES.items()
        if module in modules
    ]
    names = importlib.import_module(module).__all__
    assert names
    for name in names:
        assert re.search(rf"^##+ {name}$", text, re.MULTILINE), f"{module}.{name}"
    for name, _, docstring in functions_of(module):
        first = api_reference.escaped((docstring or "").strip().splitlines()[0])
        assert first in text, name


def test_errors_say_when_they_are_raised():
    for module in MODULES:
        for name, value in api_reference.public_names(module):
            if inspect.isclass(value) and issubclass(value, BaseException):
                assert value.__doc__, f"{module}.{name}"


def test_no_module_with_public_names_is_forgotten():
    found = set()
    for package in ("planformat", "runtime_edge", "boards", "builder_host"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            targets = [
                t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets
            ]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                relative = path.relative_to(ROOT).with_suffix("")
                found.add(".".join(relative.parts).removesuffix(".__init__"))
    assert found == {*MODULES, *ELSEWHERE}
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {uri}\n" in nav for uri in api_reference.PAGES)
