"""Bounded reading of protobuf wire bytes without copies.

A caffemodel is mostly float arrays. protobuf would turn each into a copy, and its only word about
a damaged file is "error parsing message"; here arrays are views of the mapped file, and damage is
named by its byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no protobuf message; the text names the byte."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: field number.
        wire_type: VARINT, FIXED64, LENGTH or FIXED32.
        value: of a VARINT, else 0.
        start, end: bytes of the payload in the buffer.
    """

    number: int
    wire_type: int
    value: int
    start: int
    end: int


def read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Value and the offset after it. Raises WireError."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= end:
            raise WireError(f"byte {at}: a number runs past byte {end}, the end of its message")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
    raise WireError(f"byte {at}: a number is longer than {_MAX_VARINT_BYTES} bytes")


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """Fields of the message in `data[start:end]`, in order. Raises WireError."""
    at = start
    while at < end:
        begin = at
        key, at = read_varint(data, at, end)
        number, wire_type = key >> 3, key & 7
        value = 0
        payload = at
        if wire_type == VARINT:
            value, at = read_varint(data, at, end)
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        elif wire_type == LENGTH:
            length, payload = read_varint(data, at, end)
            at = payload + length
        else:
            raise WireError(f"byte {begin}: field {number} has wire type {wire_type}")
        if number == 0:
            raise WireError(f"byte {begin}: a field has number 0")
        if at > end:
            raise WireError(
                f"byte {begin}: field {number} ends at byte {at}, its message at byte {end}"
            )
        yield Field(number, wire_type, value, payload, at)


def packed_varints(data: memoryview, field: Field) -> Iterator[int]:
    """Values of a repeated varint field, packed or single, as signed 64-bit numbers."""
    if field.wire_type == VARINT:
        yield signed(field.value)
        return
    at = field.start
    while at < field.end:
        value, at = read_varint(data, at, field.end)
        yield signed(value)


def signed(value: int) -> int:
    """A varint's value as a signed 64-bit number."""
    return value - (1 << 64) if value >> 63 else value
