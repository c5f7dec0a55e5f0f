"""Strict decoder of the protobuf wire format, driven by a table of fields.

The reader does not use the protobuf package: importing it takes 25 ms on a workstation, longer than
reading a whole plan; it cannot say at which byte a message is wrong; it accepts what a plan must
not hold (unknown fields, repeated singular fields). The bytes are ordinary protobuf.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from typing import Any

_DOUBLE = struct.Struct("<d")
_VARINT, _FIXED64, _BYTES = 0, 1, 2  # the low three bits of a field's tag


class FieldType(enum.Enum):
    """Types that the manifest uses."""

    UINT32 = "uint32"
    UINT64 = "uint64"
    SINT64 = "sint64"
    BOOL = "bool"
    ENUM = "enum"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    MESSAGE = "message"


_WIRE_TYPE: Mapping[FieldType, int] = {
    FieldType.UINT32: _VARINT,
    FieldType.UINT64: _VARINT,
    FieldType.SINT64: _VARINT,
    FieldType.BOOL: _VARINT,
    FieldType.ENUM: _VARINT,
    FieldType.DOUBLE: _FIXED64,
    FieldType.STRING: _BYTES,
    FieldType.BYTES: _BYTES,
    FieldType.MESSAGE: _BYTES,
}
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


class Field:
    """One field of a message.

    Attributes:
        name: as in the .proto file.
        type: of one value.
        is_optional: absent gives None in place of the type's zero.
        max_count: most values of a repeated field, 0 for a singular one.
        message: what a MESSAGE field holds.
        is_packed: several values stand in one record.
        wire_type: the low bits of the field's tag.
    """

    __slots__ = ("is_optional", "is_packed", "max_count", "message", "name", "type", "wire_type")

    def __init__(
        self,
        name: str,
        type: FieldType,
        *,
        is_optional: bool = False,
        max_count: int = 0,
        message: Message | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.is_optional = is_optional
        self.max_count = max_count
        self.message = message
        self.is_packed = max_count > 0 and _WIRE_TYPE[type] != _BYTES
        self.wire_type = _BYTES if self.is_packed else _WIRE_TYPE[type]


class Message:
    """Fields of one message by number; the name is that in the .proto file.

    Attributes:
        defaults: value of each field that is absent.
    """

    __slots__ = ("defaults", "fields", "name")

    def __init__(self, name: str, fields: Mapping[int, Field]) -> None:
        self.name = name
        self.fields = fields
        self.defaults: Mapping[str, Any] = {
            field.name: () if field.max_count else None if field.is_optional else _ZERO[field.type]
            for field in fields.values()
        }


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


def decode_message(
    data: bytes, message: Message, build: Build, begin: int = 0, end: int | None = None
) -> Any:
    """Decode one message and everything in it.

    `build` gets a dictionary from field name to value. Every field has a key: repeated fields hold
    sequences, absent ones the type's zero (None for messages and optional fields). The key `@`
    holds the message's first byte.

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
    values: dict[str, Any] = dict(message.defaults)
    values["@"] = begin
    seen = 0
    at = begin
    while at < end:
        start = at
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        field = fields.get(number)
        if field is None:
            raise WireError(f"{message.name} has no field {number}", start, is_unknown=True)
        if wire_type != field.wire_type:
            raise WireError(f"{message.name}.{field.name} has wire type {wire_type}", start)
        if field.is_packed or not field.max_count:
            if seen >> number & 1:
                raise WireError(f"{message.name}.{field.name} occurs twice", start)
            seen |= 1 << number
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
            if field.is_packed:
                values[field.name] = _packed(data, at, at + length, field)
            elif field.max_count:
                items = values[field.name]
                if not items:
                    items = values[field.name] = []
                elif len(items) == field.max_count:
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
