"""Calibration tables in TensorRT's text format.

First line: a header such as `TRT-8601-EntropyCalibration2`. Then one tensor per line: its name,
`: `, and eight hexadecimal digits, the big-endian bits of a float32: the scale, range / 127.
A tensor that went beyond float16 has a second line, `NAME#largest`, with the largest magnitude
seen, so that a build from the file keeps the same layers in float32 as the one that wrote it.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from builder_host.errors import BuilderError

MAX_FILE_BYTES = 16 << 20
_LINE = re.compile(r"(?P<name>.+): ?(?P<bits>[0-9a-fA-F]{1,8})")
_LEVELS = 127.0
_LARGEST = "#largest"


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Dynamic ranges by tensor name.

    Attributes:
        header: first line of the file; kept as it is, since other tools compare it.
        scales: value of one step of 127 by tensor name, each a finite float32 of at least 0.
        largest: largest magnitude seen, by tensor name, where float16 cannot hold it.
    """

    header: str
    scales: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check header, names and scales."""
        if not self.header or "\n" in self.header:
            raise BuilderError(f"calibration table: header {self.header!r} is not one line of text")
        for name, scale in self.scales.items():
            if not name or "\n" in name or name != name.strip():
                raise BuilderError(f"calibration table: {name!r} cannot be a tensor name")
            if not 0.0 <= scale < math.inf:
                raise BuilderError(
                    f"calibration table: scale of '{name}' is {scale}; expected a finite number "
                    "of at least 0"
                )

    @property
    def ranges(self) -> dict[str, float]:
        """Largest representable magnitude by tensor name."""
        return {name: scale * _LEVELS for name, scale in self.scales.items()}

    def text(self) -> str:
        """The file's text; tensors in the order of `scales`."""
        lines = [self.header]
        for name, scale in self.scales.items():
            lines.append(f"{name}: {_bits(scale)}")
            if name in self.largest:
                lines.append(f"{name}{_LARGEST}: {_bits(self.largest[name] / _LEVELS)}")
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        Path(path).write_text(self.text(), encoding="utf-8")


def table_of_ranges(
    header: str, ranges: Mapping[str, float], largest: Mapping[str, float] | None = None
) -> CalibrationTable:
    """A table of ranges and largest magnitudes, each rounded as the file will hold it."""
    return CalibrationTable(
        header,
        {name: float(np.float32(value / _LEVELS)) for name, value in ranges.items()},
        {
            name: float(np.float32(value / _LEVELS)) * _LEVELS
            for name, value in (largest or {}).items()
        },
    )


def parse_table(text: str, source: str = "calibration table") -> CalibrationTable:
    """Read a table.

    Args:
        text: content of the file.
        source: its name, for messages.

    Raises:
        BuilderError: names file and line of what is malformed.
    """
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise BuilderError(f"{source}: line 1 must be a header such as TRT-8601-MinMaxCalibration")
    if _LINE.fullmatch(lines[0].strip()):
        raise BuilderError(f"{source}: line 1 is a tensor; the header line is missing")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise BuilderError(
                f"{source}:{number}: '{line[:80]}' is not 'tensor name: ' and 8 hexadecimal digits"
            )
        name = match["name"].strip()
        (scale,) = struct.unpack(">f", int(match["bits"], 16).to_bytes(4, "big"))
        if not 0.0 <= scale < math.inf:
            raise BuilderError(
                f"{source}:{number}: scale of '{name}' is {scale} (bits {match['bits']}); "
                "expected a finite number of at least 0"
            )
        if name in scales:
            raise BuilderError(f"{source}:{number}: tensor '{name}' is listed twice; keep one line")
        scales[name] = scale
    seen = {name: name.removesuffix(_LARGEST) for name in scales if name.endswith(_LARGEST)}
    largest = {base: scales.pop(name) * _LEVELS for name, base in seen.items() if base in scales}
    return CalibrationTable(lines[0].strip(), scales, largest)


def load_table(path: str | os.PathLike[str]) -> CalibrationTable:
    """Read a file. Raises BuilderError when it cannot be read or is malformed."""
    try:
        size = os.path.getsize(path)
        if size > MAX_FILE_BYTES:
            raise BuilderError(
                f"{path}: {size:,} B is too large for a calibration table (limit "
                f"{MAX_FILE_BYTES:,} B)"
            )
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuilderError(f"{path}: cannot read the calibration table: {error}") from error
    return parse_table(text, str(path))


def _bits(value: float) -> str:
    return struct.pack(">f", value).hex().lstrip("0") or "0"
