"""The API reference: pages made of the docstrings of public names, while the site is built.

A public name is one of an `__all__` of PAGES. Docstrings have Google's sections (docs/style.md).
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

# Title, what the page begins with, and the modules whose `__all__` it shows.
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "api/builder_host.md": (
        "builder_host",
        "The host side: import, build, tune. Needs `edgeplan[builder]`.",
        ("builder_host", "builder_host.plugins"),
    ),
    "api/runtime_edge.md": (
        "runtime_edge",
        "What a board needs to load plans and run them.",
        ("runtime_edge", "runtime_edge.serve.client"),
    ),
    "api/planformat.md": (
        "planformat",
        "Plans as files and in memory; [the bytes](../planformat/SPEC.md).",
        ("planformat",),
    ),
    "api/boards.md": (
        "boards",
        "What programs on a board ask the plan store; the rest is the command line.",
        ("boards.store",),
    ),
}
# Classes whose objects come from a function: their constructors are not for callers.
MADE_BY = {
    "BuiltPlan": "build",
    "Engine": "load",
    "ExecutionContext": "Engine.create_context",
    "OpenPlan": "open_plan",
}
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Source):\s*$")
_ITEM = re.compile(r"^(?P<names>[\w*.]+(?:, [\w*.]+)*): (?P<text>.*)$")


def pages() -> dict[str, str]:
    """Markdown of each page by its place on the site."""
    return {uri: _page(*content) for uri, content in PAGES.items()}


def public_names(module: str) -> list[tuple[str, Any]]:
    """Names of a module's `__all__` and what they stand for, functions and data first."""
    package = importlib.import_module(module)
    found = [(name, getattr(package, name)) for name in sorted(package.__all__)]
    return sorted(found, key=lambda item: (inspect.isclass(item[1]), _is_error(item[1]), item[0]))


def public_members(owner: type) -> list[tuple[str, Any]]:
    """Public methods and properties of a class, those of its own packages' bases among them."""
    found: dict[str, Any] = {}
    for base in owner.__mro__:
        if base.__module__.partition(".")[0] in ("builtins", "enum", "abc", "typing"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or name in found:
                continue
            if isinstance(member, staticmethod | classmethod | property) or inspect.isfunction(
                member
            ):
                found[name] = member
    return sorted(found.items())


def _page(title: str, introduction: str, modules: tuple[str, ...]) -> str:
    lines = [f"# {title}", "", introduction, ""]
    for module in modules:
        if len(modules) > 1:
            lines += [f"## {module}", ""]
        text = inspect.getdoc(importlib.import_module(module)) or ""
        if len(modules) > 1:
            lines += [*_rendered(text), ""]
        for name, value in public_names(module):
            lines += _entry(name, value, "###" if len(modules) > 1 else "##")
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, level: str) -> Iterator[str]:
    yield f"{level} {name}"
    yield ""
    if not inspect.isclass(value):
        if callable(value):
            yield from _signature(name, value)
        yield from _rendered(inspect.getdoc(value) or "")
        yield ""
        return
    kind = "error" if _is_error(value) else "class"
    bases = [b.__name__ for b in value.__bases__ if b is not object]
    yield f"*{kind}* `{value.__module__}.{value.__name__}`" + (
        f", a `{'`, `'.join(bases)}`" if bases else ""
    )
    yield ""
    if name in MADE_BY:
        yield f"Made by `{MADE_BY[name]}`."
        yield ""
    elif _is_constructed(value):
        yield from _signature(name, value)
    yield from _rendered(inspect.getdoc(value) or "")
    yield ""
    if issubclass(value, enum.Enum):
        yield "Values: " + ", ".join(f"`{one.name}`" for one in value) + "."
        yield ""
    if _is_error(value):
        return
    for member_name, member in public_members(value):
        yield f"{level}# {name}.{member_name}"
        yield ""
        function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if isinstance(member, property):
            yield "*property*"
            yield ""
            function = member.fget
        else:
            yield from _signature(member_name, function)
        yield from _rendered(inspect.getdoc(function) or "")
        yield ""


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _is_constructed(value: type) -> bool:
    if issubclass(value, enum.Enum | BaseException) or getattr(value, "_is_protocol", False):
        return False
    return dataclasses.is_dataclass(value) or "__init__" in vars(value)


def _signature(name: str, function: Any) -> Iterator[str]:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    result = ""
    if not inspect.isclass(function) and signature.return_annotation is not signature.empty:
        result = f" -> {_plain(signature.return_annotation)}"
    shown = [_parameter(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(shown)}){result}"
    yield "```python"
    if len(line) <= 88 or not shown:
        yield line
    else:
        yield f"{name}("
        yield from (f"    {text}," for text in shown)
        yield f"){result}"
    yield "```"
    yield ""


def _parameter(parameter: inspect.Parameter) -> str:
    """A parameter as it is written; defaults that have no text are shown as `...`."""
    text = parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_plain(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = "..." if " object at 0x" in repr(parameter.default) else repr(parameter.default)
        default = "..." if default == "<factory>" else default
        if isinstance(parameter.default, enum.Enum):
            default = str(parameter.default)
        text += f" = {default}"
    return text


def _plain(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _rendered(text: str) -> Iterator[str]:
    """A docstring as Markdown: sections become lists, code that is set in stays as it is."""
    section, is_list = "", False
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section, is_list = found[1], found[1] in ("Args", "Attributes", "Raises")
            yield f"*{section}*"
            yield ""
        elif not section or (line and not line.startswith(" ")):
            section = ""
            yield line if line.startswith("    ") else escaped(line)
        elif is_list and (item := _ITEM.match(line[4:])):
            names = ", ".join(f"`{name.strip()}`" for name in item["names"].split(","))
            yield f"- {names}: {escaped(item['text'])}"
        else:
            yield f"{'  ' if is_list else ''}{escaped(line.strip())}".rstrip()


def escaped(text: str) -> str:
    """Text in which nothing is markup but what stands in backquotes."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_<>\[\]])", r"\\\1", piece)
        for piece in pieces
    )
