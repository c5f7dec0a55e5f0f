"""Board files: one TOML file in `specs/` per board; loading and checking.

A board whose software decides what its driver takes lists its generations, e.g. JetPack 5 and 6:
`jetson-agx-orin` means the first one, `jetson-agx-orin@jetpack5` another.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from boards.errors import BoardSpecError
from planformat.fingerprint import FIELD_RULES

__all__ = [
    "BoardSpec",
    "BoardSpecError",
    "PowerMode",
    "SerialDefaults",
    "SoftwareGeneration",
    "board_names",
    "check_board",
    "load_board",
]

SPECS_DIR = Path(__file__).parent / "specs"
BAUD_RATES = (9600, 57600, 115200, 230400, 460800, 921600, 1500000, 3000000)


@dataclass(frozen=True, slots=True)
class SoftwareGeneration:
    """One generation of a board's system software.

    Attributes:
        name: behind the `@` of a board name, e.g. `jetpack5`; title: for people.
        release: L4T, DRIVE OS or driver releases that it stands for.
        toolkit: CUDA toolkit that makes code for its driver, e.g. `11.8`.
        fingerprint: fields that hold for this generation, e.g. `cuda.cuda_version`.
    """

    name: str
    title: str
    release: str = ""
    toolkit: str = ""
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A power mode by its name in the board's configuration; id: of `nvpmodel -m`, if stable."""

    name: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class SerialDefaults:
    """How a serial link to the board is opened.

    Attributes:
        baud, stop_bits: the rate that a link starts with, in bits per second.
        fast_baud, fast_stop_bits: the rate to try next.
    """

    baud: int = 115200
    stop_bits: int = 1
    fast_baud: int = 921600
    fast_stop_bits: int = 2


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """One board with one generation of its software.

    Attributes:
        name: file name without ending; title: for people.
        device_kind: `cpu` or `cuda`.
        is_probed: the fingerprint comes from the live device; `fingerprint` is then empty.
        fingerprint: fields equal on every unit, those of the generation included.
        sources: where the numbers come from.
        software: all generations, the default first; generation: name of the chosen one.
        hardware: facts for people and cost models, not compared between devices: `cpu`,
            `memory_bytes` (nominal), `memory_gbps` (1e9 bytes/s), `core_clock_hz` (the highest).
        power_modes: as far as they are the same in all releases.
        serial: None when the board has no serial line to speak of.
    """

    name: str
    title: str
    device_kind: str
    is_probed: bool = False
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    software: tuple[SoftwareGeneration, ...] = ()
    generation: str = ""
    hardware: Mapping[str, str | int | float] = field(default_factory=dict)
    power_modes: tuple[PowerMode, ...] = ()
    serial: SerialDefaults | None = None


_SCHEMA: Mapping[str, type] = {
    "name": str,
    "title": str,
    "device_kind": str,
    "is_probed": bool,
    "fingerprint": dict,
    "sources": list,
    "software": list,
    "hardware": dict,
    "power_modes": list,
    "serial": dict,
}
_REQUIRED = ("name", "title", "device_kind", "sources")
_SOFTWARE = {"name": str, "title": str, "release": str, "toolkit": str, "fingerprint": dict}
_POWER_MODE = {"name": str, "id": int}
_SERIAL = {"baud": int, "stop_bits": int, "fast_baud": int, "fast_stop_bits": int}
_HARDWARE = {"cpu": str, "memory_bytes": int, "memory_gbps": float, "core_clock_hz": int}


@cache
def board_names() -> tuple[str, ...]:
    """Names of all boards, sorted."""
    return tuple(sorted(path.stem for path in SPECS_DIR.glob("*.toml")))


def load_board(name: str) -> BoardSpec:
    """Load and check one board file.

    Args:
        name: a board, or board and software generation: `jetson-agx-orin@jetpack5`.

    Raises:
        BoardSpecError: unknown board or generation (the text lists the known ones), a broken file,
            or no TOML reader (Python 3.10 without tomli).
    """
    board, at, generation = name.partition("@")
    if board not in board_names():
        raise BoardSpecError(f"unknown board '{board}'; known: {', '.join(board_names())}")
    path = SPECS_DIR / f"{board}.toml"
    return check_board(_read(path), path.stem, generation if at else None)


def check_board(content: Mapping[str, Any], stem: str, generation: str | None = None) -> BoardSpec:
    """Check the content of a board file against the schema.

    Args:
        content: as TOML gives it.
        stem: file name without ending.
        generation: software to choose; None takes the first.

    Raises:
        BoardSpecError: what breaks the schema, with file and key.
    """
    file = f"{stem}.toml"
    _check_table(content, _SCHEMA, file, "")
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise BoardSpecError(f"{file}: lacks {', '.join(missing)}")
    if content["name"] != stem:
        raise BoardSpecError(f"{file}: name is '{content['name']}'; expected '{stem}'")
    if content["device_kind"] not in ("cpu", "cuda"):
        raise BoardSpecError(
            f"{file}: device_kind is '{content['device_kind']}'; expected 'cpu' or 'cuda'"
        )
    fields = _fingerprint(content.get("fingerprint", {}), file, "fingerprint")
    is_probed = bool(content.get("is_probed", False))
    if is_probed == bool(fields):
        raise BoardSpecError(f"{file}: state either is_probed = true or a fingerprint")
    for number, source in enumerate(content["sources"]):
        if not isinstance(source, str):
            raise BoardSpecError(f"{file}: sources[{number}] is {source!r}; expected a text")
    if not is_probed and not content["sources"]:
        raise BoardSpecError(f"{file}: sources is empty; name the documents behind the numbers")
    software = _software(content.get("software", []), file)
    chosen = _choose(software, generation, stem)
    if chosen is not None:
        fields |= chosen.fingerprint
    hardware = content.get("hardware", {})
    _check_table(hardware, _HARDWARE, file, "hardware.")
    return BoardSpec(
        name=stem,
        title=content["title"],
        device_kind=content["device_kind"],
        is_probed=is_probed,
        fingerprint=fields,
        sources=tuple(content["sources"]),
        software=software,
        generation=chosen.name if chosen else "",
        hardware=dict(hardware),
        power_modes=_power_modes(content.get("power_modes", []), file),
        serial=_serial(content["serial"], file) if "serial" in content else None,
    )


def _read(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise BoardSpecError(
                f"{path.name}: Python 3.10 cannot read TOML by itself; run: pip install tomli"
            ) from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardSpecError(f"{path.name}: {error}") from error


def _check_table(
    table: object, schema: Mapping[str, type], file: str, prefix: str
) -> Mapping[str, Any]:
    """A table with only known keys whose values have the right types."""
    if not isinstance(table, Mapping):
        raise BoardSpecError(f"{file}: {prefix.rstrip('.')} is {table!r}; expected a table")
    for key, value in table.items():
        if key not in schema:
            raise BoardSpecError(f"{file}: unknown key '{prefix}{key}'; known: {', '.join(schema)}")
        wanted = schema[key]
        is_bool = isinstance(value, bool) and wanted is not bool
        is_number = wanted is float and isinstance(value, int)
        if is_bool or not (isinstance(value, wanted) or is_number):
            raise BoardSpecError(
                f"{file}: '{prefix}{key}' is {value!r}; expected {wanted.__name__}"
            )
        if wanted in (int, float) and value < 0:
            raise BoardSpecError(f"{file}: '{prefix}{key}' is {value!r}; expected no less than 0")
    return table


def _fingerprint(table: Mapping[str, Any], file: str, prefix: str) -> dict[str, str]:
    fields = {}
    for key, value in table.items():
        if key not in FIELD_RULES:
            raise BoardSpecError(
                f"{file}: {prefix} has the unknown field '{key}'; known: {', '.join(FIELD_RULES)}"
            )
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise BoardSpecError(
                f"{file}: {prefix} field '{key}' is {value!r}; expected a text or a whole number"
            )
        fields[key] = str(value)
    return fields


def _software(entries: Sequence[object], file: str) -> tuple[SoftwareGeneration, ...]:
    generations: list[SoftwareGeneration] = []
    for number, entry in enumerate(entries):
        prefix = f"software[{number}]."
        table = _check_table(entry, _SOFTWARE, file, prefix)
        for key in ("name", "title"):
            if not table.get(key):
                raise BoardSpecError(f"{file}: {prefix.rstrip('.')} lacks {key}")
        if table["name"] in [generation.name for generation in generations]:
            raise BoardSpecError(f"{file}: two software generations are named '{table['name']}'")
        if "@" in table["name"]:
            raise BoardSpecError(f"{file}: '{prefix}name' is '{table['name']}'; '@' is reserved")
        toolkit = table.get("toolkit", "")
        parts = toolkit.split(".")
        if toolkit and not (len(parts) == 2 and all(p.isascii() and p.isdigit() for p in parts)):
            raise BoardSpecError(
                f"{file}: '{prefix}toolkit' is '{toolkit}'; expected a version like 11.8"
            )
        generations.append(
            SoftwareGeneration(
                name=table["name"],
                title=table["title"],
                release=table.get("release", ""),
                toolkit=toolkit,
                fingerprint=_fingerprint(
                    table.get("fingerprint", {}), file, f"{prefix}fingerprint"
                ),
            )
        )
    return tuple(generations)


def _choose(
    software: Sequence[SoftwareGeneration], name: str | None, board: str
) -> SoftwareGeneration | None:
    if name is None:
        return software[0] if software else None
    for generation in software:
        if generation.name == name:
            return generation
    if not software:
        raise BoardSpecError(f"board '{board}' has one software only; leave out '@{name}'")
    known = ", ".join(f"{board}@{generation.name}" for generation in software)
    raise BoardSpecError(f"board '{board}' has no software '{name}'; known: {known}")


def _power_modes(entries: Sequence[object], file: str) -> tuple[PowerMode, ...]:
    modes = []
    for number, entry in enumerate(entries):
        table = _check_table(entry, _POWER_MODE, file, f"power_modes[{number}].")
        if not table.get("name"):
            raise BoardSpecError(f"{file}: power_modes[{number}] lacks name")
        modes.append(PowerMode(table["name"], table.get("id")))
    return tuple(modes)


def _serial(entry: object, file: str) -> SerialDefaults:
    table = _check_table(entry, _SERIAL, file, "serial.")
    serial = SerialDefaults(**table)
    for key in ("baud", "fast_baud"):
        if getattr(serial, key) not in BAUD_RATES:
            raise BoardSpecError(
                f"{file}: 'serial.{key}' is {getattr(serial, key)}; "
                f"known: {', '.join(map(str, BAUD_RATES))}"
            )
    for key in ("stop_bits", "fast_stop_bits"):
        if getattr(serial, key) not in (1, 2):
            raise BoardSpecError(
                f"{file}: 'serial.{key}' is {getattr(serial, key)}; expected 1 or 2"
            )
    return serial
