"""The canary inference: inputs that are the same on every machine, and the check of its outputs.

SPEC.md section 9. Works on bytes alone, without numpy.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import cache
from typing import Literal

from planformat.datatypes import DataType
from planformat.plan import Buffer

_CONTEXT = b"edgeplan canary 1\0"
_INTEGERS = {
    DataType.INT8: "<b",
    DataType.UINT8: "<B",
    DataType.INT16: "<h",
    DataType.UINT16: "<H",
    DataType.INT32: "<i",
    DataType.UINT32: "<I",
    DataType.INT64: "<q",
    DataType.UINT64: "<Q",
}
_FLOATS = {DataType.FLOAT32: "<f", DataType.FLOAT16: "<e", DataType.FLOAT64: "<d"}


def canary_input(seed: int, binding_index: int, num_elems: int, dtype: DataType) -> bytes:
    """Little-endian elements of one input binding.

    Floats are multiples of 1/128 in [-1, 127/128], exact in every float type; integers lie in
    [0, 7]; booleans are 0 or 1.

    Args:
        seed: 0 to 2**64 - 1, from the canary.
        binding_index: index into `Plan.bindings`.
        num_elems: elements of the binding in memory.
        dtype: element type.
    """
    key = _CONTEXT + struct.pack("<QI", seed, binding_index)
    stream = hashlib.shake_128(key).digest(num_elems)
    tables = _byte_tables(dtype)
    elements = bytearray(num_elems * len(tables))
    for position, table in enumerate(tables):
        if any(table):
            elements[position :: len(tables)] = stream.translate(table)
    return bytes(elements)


@dataclass(frozen=True, slots=True)
class CanaryDifference:
    """The first sampled element that misses its tolerance; `index` counts sampled elements."""

    index: int
    expected: float
    actual: float


def sample_output(output: Buffer, stride: int, dtype: DataType) -> bytes:
    """Elements 0, stride, 2 * stride, ... of an output in memory order.

    Args:
        output: all little-endian elements of the output.
        stride: at least 1.
        dtype: element type.
    """
    view = memoryview(output).cast("B")
    return view.cast(_UNSIGNED[dtype.size_bytes])[::stride].tobytes()


def compare_output(
    expected: bytes,
    actual: bytes,
    dtype: DataType,
    *,
    absolute_tolerance: float,
    relative_tolerance: float,
) -> CanaryDifference | None:
    """First sampled element that is not |actual - expected| <= absolute + relative * |expected|.

    A NaN equals only a NaN, an infinity only itself.

    Args:
        expected: from `Canary.outputs`.
        actual: from `sample_output`, as long as expected.
        dtype: element type of both.
        absolute_tolerance: from the canary.
        relative_tolerance: from the canary.
    """
    if expected == actual:
        return None
    pairs = zip(_values(expected, dtype), _values(actual, dtype), strict=True)
    for index, (wanted, value) in enumerate(pairs):
        if wanted == value or (wanted != wanted and value != value):
            continue
        tolerance = absolute_tolerance + relative_tolerance * abs(wanted)
        if math.isfinite(wanted) and abs(value - wanted) <= tolerance:
            continue
        return CanaryDifference(index, float(wanted), float(value))
    return None


_UNSIGNED: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _values(data: bytes, dtype: DataType) -> tuple[float, ...]:
    if dtype is DataType.BFLOAT16:
        padded = bytearray(2 * len(data))
        padded[2::4], padded[3::4] = data[0::2], data[1::2]
        data, code = bytes(padded), "f"
    elif dtype is DataType.BOOL:
        code = "?"
    else:
        code = (_FLOATS.get(dtype) or _INTEGERS[dtype])[1]
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data)


@cache
def _byte_tables(dtype: DataType) -> tuple[bytes, ...]:
    """For each byte of an element, the table from stream byte to that byte."""
    elements = [_element(byte, dtype) for byte in range(256)]
    return tuple(bytes(column) for column in zip(*elements, strict=True))


def _element(byte: int, dtype: DataType) -> bytes:
    if dtype is DataType.BOOL:
        return bytes([byte & 1])
    if dtype in _INTEGERS:
        return struct.pack(_INTEGERS[dtype], byte & 7)
    value = (byte - 128) / 128
    if dtype is DataType.BFLOAT16:
        return struct.pack("<f", value)[2:]
    return struct.pack(_FLOATS[dtype], value)
