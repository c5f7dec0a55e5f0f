"""Writes the tables of docs/migrating-from-tensorrt.md.

Members of TensorRT's classes are in tensorrt_api.toml; of each the table says what this module
does: it is here, or it is refused with what to use instead. Run it after changing either.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from builder_host import tensorrt as trt  # noqa: E402
from builder_host.tensorrt.config import WITHOUT_MEANING  # noqa: E402

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = ROOT / "docs" / "migrating-from-tensorrt.md"
API = ROOT / "scripts" / "tensorrt_api.toml"
BEGIN = "<!-- tables: written by scripts/make_tensorrt_page.py -->\n"
END = "<!-- end of the tables -->\n"


def page(written: str) -> str:
    """The page with new tables.

    Args:
        written: the page as it is.

    Raises:
        SystemExit: the page has no place for them, or a member is neither here nor refused.
    """
    found = re.fullmatch(f"(.*{BEGIN}).*({END}.*)", written, re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE.name}: no place for the tables: '{BEGIN.strip()}'")
    return found[1] + "\n".join(tables()) + found[2]


def tables() -> Iterator[str]:
    """Lines of all tables."""
    for row in tomllib.loads(API.read_text(encoding="utf-8")).values():
        owner = getattr(trt, row["class"])
        yield f"\n### {row['class']}\n"
        for title in ("layers", "members"):
            if title in row:
                yield from _table(owner, row[title].split())
    yield "\n### BuilderFlag\n"
    has_meaning = [f"`{flag.name}`" for flag in trt.BuilderFlag if flag not in WITHOUT_MEANING]
    yield f"With a meaning: {', '.join(has_meaning)}.\n"
    yield "| accepted, with a warning | why nothing changes |\n|---|---|"
    reasons: dict[str, list[str]] = {}
    for flag, reason in WITHOUT_MEANING.items():
        reasons.setdefault(reason, []).append(f"`{flag.name}`")
    for reason, flags in reasons.items():
        yield f"| {', '.join(flags)} | {reason} |"
    yield ""


def _table(owner: Any, names: list[str]) -> Iterator[str]:
    own = members(owner)
    refused = getattr(owner, "refused", {})
    here = [name for name in names if name in own]
    unknown = [name for name in names if name not in own and name not in refused]
    if unknown:
        raise SystemExit(f"{owner.__name__}: neither here nor refused: {', '.join(unknown)}")
    yield f"Here: {', '.join(f'`{name}`' for name in here)}.\n"
    advice: dict[str, list[str]] = {}
    for name in names:
        if name not in own:
            advice.setdefault(refused[name], []).append(f"`{name}`")
    if advice:
        yield "| refused | instead |\n|---|---|"
        for text, missing in advice.items():
            yield f"| {', '.join(missing)} | {text} |"
        yield ""


def members(owner: Any) -> set[str]:
    """Public names of a class: methods, properties, fields, and what its methods set on `self`."""
    found = set(dir(owner)) | set(getattr(owner, "__dataclass_fields__", ()))
    for base in owner.__mro__:
        if base.__module__.startswith(("builder_host", "runtime_edge")):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
                if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                    continue
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    found.add(node.attr)
    return {name for name in found if not name.startswith("_")}


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
