"""Inputs of the canary inference: the same bytes on every machine (SPEC.md section 9)."""

from __future__ import annotations

import hashlib
import struct
from functools import cache

from planformat.datatypes import DataType

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
