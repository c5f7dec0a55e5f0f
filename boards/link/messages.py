"""Messages on the channels: a JSON object and bytes. PROTOCOL.md section 6."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boards.errors import LinkProtocolError

_LENGTH = struct.Struct("<I")
MAX_FIELDS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """A request, a notice or a reply.

    Attributes:
        fields: a JSON object. Requests have `id` and `op`, notices `id` and `notice`, replies `id`
            and `ok`.
        body: bytes that belong to it.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


def encode_message(fields: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Bytes of a message."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + body


def decode_message(data: bytes) -> Message:
    """Inverse of `encode_message`.

    Raises:
        LinkProtocolError: too short, too long, or no JSON object.
    """
    if len(data) < _LENGTH.size:
        raise LinkProtocolError(f"a message of {len(data)} bytes is too short")
    length = _LENGTH.unpack_from(data)[0]
    end = _LENGTH.size + length
    if length > MAX_FIELDS_BYTES or end > len(data):
        raise LinkProtocolError(
            f"a message of {len(data):,} bytes states {length:,} bytes of fields; allowed are "
            f"{MAX_FIELDS_BYTES:,}"
        )
    try:
        fields = json.loads(data[_LENGTH.size : end])
    except (ValueError, RecursionError) as error:
        raise LinkProtocolError(f"the fields of a message are no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise LinkProtocolError("the fields of a message are no JSON object")
    return Message(fields, data[end:])
