"""Several CUDA sources as one translation unit, so that a plan has few modules.

A driver keeps device memory for each module beside its code: 33 modules of ResNet-50 took 4 MiB on
an H200, one took none. Each source becomes a namespace of its own behind the product's headers;
kernels are `extern "C"` and keep their names, and what a source defines for the preprocessor ends
with it. What a kernel declares `extern` has C linkage too, whatever the namespace: dynamic shared
memory gets a name for each source, since sources give it different types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SOURCES = 16  # of one unit: large networks then still compile on several cores
_HEADER = re.compile(r'^#include "ep_\w+\.cuh"\n', re.MULTILINE)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_DYNAMIC_SHARED = re.compile(r"\bextern __shared__[^;\[]*?(\w+)\[\]")
_ANY_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MergedSource:
    """A translation unit and the sources that are in it, in order."""

    text: str
    sources: tuple[str, ...]


def merge_sources(sources: Sequence[str]) -> list[MergedSource]:
    """Put sources together that see the product's headers alike.

    Args:
        sources: CUDA C++ texts, each once.

    Returns:
        Units of two to `MAX_SOURCES` sources, in the order of their first ones; sources that
        include anything else, or nothing, or that nobody shares a unit with, are in none.
    """
    groups: dict[str, list[_Parts]] = {}
    for source in sources:
        parts = _parts(source)
        if parts is not None:
            groups.setdefault(parts.directives, []).append(parts)
    merged = []
    for members in groups.values():
        count = -(-len(members) // MAX_SOURCES)
        size = -(-len(members) // count)
        for start in range(0, len(members), size):
            unit = members[start : start + size]
            if len(unit) > 1:
                merged.append(MergedSource(_text(unit), tuple(part.source for part in unit)))
    return merged


@dataclass(frozen=True, slots=True)
class _Parts:
    """A source: directives ahead of its only include, which change the header, and the rest."""

    source: str
    directives: str
    include: str
    body: str


def _parts(source: str) -> _Parts | None:
    header = _HEADER.search(source)
    if header is None or len(_ANY_INCLUDE.findall(source)) != 1:
        return None
    directives = "".join(f"{line}\n" for line in _DIRECTIVE.findall(source[: header.start()]))
    return _Parts(source, directives, header[0], source[header.end() :])


def _text(parts: Sequence[_Parts]) -> str:
    lines = [parts[0].directives, *dict.fromkeys(part.include for part in parts)]
    for number, part in enumerate(parts):
        body = part.body
        for name in dict.fromkeys(_DYNAMIC_SHARED.findall(body)):
            # names in PTX (st.shared.u32) are others
            body = re.sub(rf"(?<![\w.]){name}(?![\w.])", f"{name}_of_source_{number}", body)
        lines.append(f"namespace ep_source_{number} {{\n{body}\n}}\n")
        lines += [f"#undef {name}\n" for name in dict.fromkeys(_DEFINE.findall(body))]
    return "".join(lines)
