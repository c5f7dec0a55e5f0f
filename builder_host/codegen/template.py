"""Filling the parameter block of a kernel template.

A template is a real C file that compiles with its defaults. Its parameters are the lines
`#define NAME value` between the lines `// parameters` and `// end of parameters`; nothing else of
the file is changed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

BEGIN = "// parameters"
END = "// end of parameters"
_DEFINE = re.compile(r"^#define\s+([A-Za-z_]\w*)(?:\s+(.*))?$")
_WORD = re.compile(r"\w+")


class TemplateError(ValueError):
    """A template and the parameters given for it do not fit together."""


def parameter_names(text: str) -> tuple[str, ...]:
    """Names of the parameters of a template, in order.

    Raises:
        TemplateError: no parameter block, two of them, or a line in it that is no parameter.
    """
    _, block, _ = _split(text)
    return tuple(_defines(block))


def fill(text: str, parameters: Mapping[str, int | str]) -> str:
    """Replace the value of every parameter of a template.

    Args:
        text: the template.
        parameters: a value for each parameter; text is put in as it is and may span lines.

    Returns:
        The source text; equal arguments give equal text.

    Raises:
        TemplateError: a parameter that the template lacks, one that is not given, one that the
            body never mentions, or a broken parameter block.
    """
    head, block, tail = _split(text)
    defines = _defines(block)
    names = list(defines)
    used = {word for line in (*tail, *defines.values()) for word in _words(line)}
    unknown = sorted(set(parameters) - set(names))
    missing = sorted(set(names) - set(parameters))
    unused = [name for name in names if name not in used]
    problems = [
        f"{what}: {', '.join(found)}"
        for what, found in (
            ("unknown parameters", unknown),
            ("parameters without a value", missing),
            ("parameters that the template never uses", unused),
        )
        if found
    ]
    if problems:
        raise TemplateError("; ".join(problems) + f" (the template has: {', '.join(names)})")
    lines = [f"#define {name} {_value(parameters[name])}".rstrip() for name in names]
    return "\n".join([*head, BEGIN, *lines, END, *tail]) + "\n"


def _value(value: int | str) -> str:
    return " \\\n  ".join(str(value).splitlines()) if isinstance(value, str) else str(value)


@functools.lru_cache(maxsize=256)  # a template is filled for many layers
def _split(text: str) -> tuple[list[str], list[str], list[str]]:
    lines = text.splitlines()
    begins = [i for i, line in enumerate(lines) if line.strip() == BEGIN]
    ends = [i for i, line in enumerate(lines) if line.strip() == END]
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise TemplateError(
            f"the template needs one line '{BEGIN}' followed by one line '{END}'; "
            f"found {len(begins)} and {len(ends)}"
        )
    return lines[: begins[0]], lines[begins[0] + 1 : ends[0]], lines[ends[0] + 1 :]


def _defines(block: list[str]) -> dict[str, str]:
    """Name and default of each parameter; comments, #ifndef and #endif lines are dropped."""
    found: dict[str, str] = {}
    for line in block:
        bare = line.split("//", 1)[0].strip()
        if not bare or bare.startswith(("/*", "*", "#ifndef", "#endif")):
            continue
        match = _DEFINE.match(bare)
        if match is None:
            raise TemplateError(f"line '{line}' in the parameter block is no '#define NAME value'")
        if match[1] in found:
            raise TemplateError(f"parameter {match[1]} is defined twice")
        found[match[1]] = match[2] or ""
    return found


@functools.lru_cache(maxsize=1 << 15)  # templates repeat their lines from fill to fill
def _words(line: str) -> frozenset[str]:
    return frozenset(_WORD.findall(line))
