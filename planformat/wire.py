"""Strict decoder of the protobuf wire format, driven by a table of fields.

The reader does not use the protobuf package: importing it takes 25 ms on a workstation, longer than
reading a whole plan; it cannot say at which byte a message is wrong; it accepts what a plan must
not hold (unknown fields, repeated singular fields). The bytes are ordinary protobuf.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_DOUBLE = struct.Struct("<d")
_VARINT, _FIXED64, _BYTES = 0, 1, 2


class FieldType(enum.Enum):
    """Types that the manifest uses, with their protobuf wire type."""

    UINT32 = ("uint32", _VARINT)
    UINT64 = ("uint64", _VARINT)
    SINT64 = ("sint64", _VARINT)
    BOOL = ("bool", _VARINT)
    ENUM = ("enum", _VARINT)
    DOUBLE = ("double", _FIXED64)
    STRING = ("string", _BYTES)
    BYTES = ("bytes", _BYTES)
    MESSAGE = ("message", _BYTES)

    @property
    def wire_type(self) -> int:
        """Number in the low bits of a field's tag."""
        return int(self.value[1])


class Field(NamedTuple):
    """One field of a message.

    is_optional: absent gives None in place of the type's zero.
    max_count: most values of a repeated field, 0 for a singular one.
    message: what a MESSAGE field holds.
    """

    name: str
    type: FieldType
    is_optional: bool = False
    max_count: int = 0
    message: Message | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether the field may occur more than once."""
        return self.max_count > 0


class Message(NamedTuple):
    """Fields of one message by number; the name is that in the .proto file."""

    name: str
    fields: Mapping[int, Field]


Build = Callable[[str, "dict[str, Any]"], Any]
"""Called with a message's name and values when it is complete; its result takes their place, so
that the dictionaries, a hundred times as large as the bytes, do not add up."""


class WireError(ValueError):
    """Bytes that do not follow the wire format or the table.

    Attributes:
        offset: byte in the decoded data.
        is_unknown: the field is not in the table, so that a newer writer may have made it.
    """

    def __init__(self, text: str, offset: int, *, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.offset = offset
        self.is_unknown = is_unknown


_ZERO: Mapping[FieldType, Any] = {
    FieldType.UINT32: 0,
    FieldType.UINT64: 0,
    FieldType.SINT64: 0,
    FieldType.BOOL: False,
    FieldType.ENUM: 0,
    FieldType.DOUBLE: 0.0,
    FieldType.STRING: "",
    FieldType.BYTES: b"",
    FieldType.MESSAGE: None,
}


def decode_message(
    data: bytes, message: Message, build: Build, begin: int = 0, end: int | None = None
) -> Any:
    """Decode one message and everything in it.

    `build` gets a dictionary from field name to value. Every field has a key: repeated fields hold
    lists, absent ones the type's zero (None for messages and optional fields). The key `@` holds
    the message's first byte.

    Args:
        data: the bytes; only `begin` to `end` are read.
        message: what they hold.
        build: makes the result of a message, inner ones first.
        begin: first byte of the message.
        end: byte after its last one, None for the end of data.

    Returns:
        What `build` made of the outermost message.

    Raises:
        WireError: with the byte at which decoding stopped.
    """
    end = len(data) if end is None else end
    fields = message.fields
    values: dict[str, Any] = {
        field.name: [] if field.max_count else None if field.is_optional else _ZERO[field.type]
        for field in fields.values()
    }
    values["@"] = begin
    seen = set()
    at = begin
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        field = fields.get(number)
        if field is None:
            raise WireError(f"{message.name} has no field {number}", start, is_unknown=True)
        is_packed = field.is_repeated and field.type.wire_type != _BYTES
        if wire_type != (_BYTES if is_packed else field.type.wire_type):
            raise WireError(f"{message.name}.{field.name} has wire type {wire_type}", start)
        if is_packed or not field.is_repeated:
            if number in seen:
                raise WireError(f"{message.name}.{field.name} occurs twice", start)
            seen.add(number)
        if wire_type == _VARINT:
            raw, at = _varint(data, at, end)
            values[field.name] = _scalar(raw, field, start)
        elif wire_type == _FIXED64:
            if at + 8 > end:
                raise WireError(f"{message.name}.{field.name} is cut short", start)
            values[field.name] = _DOUBLE.unpack_from(data, at)[0]
            at += 8
        else:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise WireError(
                    f"{message.name}.{field.name} has {length:,} bytes, {end - at:,} are left",
                    start,
                )
            if is_packed:
                values[field.name] = _packed(data, at, at + length, field)
            elif field.is_repeated:
                items = values[field.name]
                if len(items) == field.max_count:
                    raise WireError(_too_many(field), start)
                items.append(_delimited(data, at, at + length, field, build))
            else:
                values[field.name] = _delimited(data, at, at + length, field, build)
            at += length
    return build(message.name, values)


def _too_many(field: Field) -> str:
    return f"there are more than {field.max_count:,} {field.name}"


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    start, value, shift = at, 0, 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or byte == 0:
                raise WireError("a number is longer than it needs to be or exceeds 64 bits", start)
            return value, at
        shift += 7
    raise WireError("a number is cut short or longer than 10 bytes", start)


def _scalar(raw: int, field: Field, at: int) -> int | bool:
    kind = field.type
    if kind is FieldType.UINT64:
        return raw
    if kind is FieldType.SINT64:
        return (raw >> 1) ^ -(raw & 1)
    if kind is FieldType.BOOL:
        if raw > 1:
            raise WireError(f"{field.name} is {raw}, a bool is 0 or 1", at)
        return raw == 1
    if raw >= 1 << 32:
        raise WireError(f"{field.name} is {raw}, it has 32 bits", at)
    return raw


def _packed(data: bytes, at: int, end: int, field: Field) -> list[int | bool]:
    values: list[int | bool] = []
    while at < end:
        start = at
        if len(values) == field.max_count:
            raise WireError(_too_many(field), start)
        raw, at = _varint(data, at, end)
        values.append(_scalar(raw, field, start))
    return values


def _delimited(data: bytes, begin: int, end: int, field: Field, build: Build) -> Any:
    if field.type is FieldType.BYTES:
        return data[begin:end]
    if field.type is FieldType.STRING:
        try:
            return data[begin:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"{field.name} is no UTF-8 text", begin + error.start) from error
    assert field.message is not None
    return decode_message(data, field.message, build, begin, end)
