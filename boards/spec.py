"""Board files: one TOML file in `specs/` per board; loading and checking."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPECS_DIR = Path(__file__).parent / "specs"


class BoardSpecError(Exception):
    """A board file that does not exist or breaks the schema; the text names file and key."""


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """One board.

    Attributes:
        name: file name without ending; title: for people.
        device_kind: `cpu` or `cuda`.
        is_probed: the fingerprint comes from the live device; `fingerprint` is then empty.
        fingerprint: fingerprint fields that the file states.
        sources: where the numbers come from.
    """

    name: str
    title: str
    device_kind: str
    is_probed: bool = False
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


_SCHEMA: Mapping[str, type] = {
    "name": str,
    "title": str,
    "device_kind": str,
    "is_probed": bool,
    "fingerprint": dict,
    "sources": list,
}
_REQUIRED = ("name", "title", "device_kind", "sources")


@cache
def board_names() -> tuple[str, ...]:
    """Names of all boards, sorted."""
    return tuple(sorted(path.stem for path in SPECS_DIR.glob("*.toml")))


def load_board(name: str) -> BoardSpec:
    """Load and check one board file.

    Raises:
        BoardSpecError: unknown board (the text lists the known ones) or a broken file.
    """
    if name not in board_names():
        raise BoardSpecError(f"unknown board '{name}'; known: {', '.join(board_names())}")
    path = SPECS_DIR / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BoardSpecError(f"{path.name}: {error}") from error
    return check_board(content, path.stem)


def check_board(content: Mapping[str, Any], stem: str) -> BoardSpec:
    """Check the content of a board file against the schema. Raises BoardSpecError."""
    for key, value in content.items():
        if key not in _SCHEMA:
            raise BoardSpecError(f"{stem}.toml: unknown key '{key}'; known: {', '.join(_SCHEMA)}")
        if not isinstance(value, _SCHEMA[key]):
            raise BoardSpecError(
                f"{stem}.toml: '{key}' is {value!r}; expected {_SCHEMA[key].__name__}"
            )
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise BoardSpecError(f"{stem}.toml: lacks {', '.join(missing)}")
    if content["name"] != stem:
        raise BoardSpecError(f"{stem}.toml: name is '{content['name']}'; expected '{stem}'")
    if content["device_kind"] not in ("cpu", "cuda"):
        raise BoardSpecError(f"{stem}.toml: device_kind is '{content['device_kind']}'")
    fields = content.get("fingerprint", {})
    if bool(content.get("is_probed", False)) == bool(fields):
        raise BoardSpecError(f"{stem}.toml: state either is_probed = true or a fingerprint")
    return BoardSpec(
        content["name"],
        content["title"],
        content["device_kind"],
        bool(content.get("is_probed", False)),
        {str(k): str(v) for k, v in fields.items()},
        tuple(str(s) for s in content["sources"]),
    )
