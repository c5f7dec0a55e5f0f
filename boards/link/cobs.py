"""Consistent Overhead Byte Stuffing: any bytes as bytes without zero (Cheshire and Baker, 1997)."""

from __future__ import annotations

_LONGEST = 254


def cobs_encode(data: bytes) -> bytes:
    """Bytes without a zero; at most len(data) // 254 + 1 bytes more than data."""
    parts = []
    for run in data.split(b"\0"):
        begin = 0
        while len(run) - begin >= _LONGEST:
            parts += [b"\xff", run[begin : begin + _LONGEST]]
            begin += _LONGEST
        parts += [bytes((len(run) - begin + 1,)), run[begin:]]
    return b"".join(parts)


def cobs_decode(data: bytes) -> bytes | None:
    """Inverse of `cobs_encode`; None when data is no such encoding."""
    parts = []
    position, size = 0, len(data)
    while position < size:
        code = data[position]
        end = position + code
        if code == 0 or end > size:
            return None
        parts.append(data[position + 1 : end])
        if code <= _LONGEST and end < size:
            parts.append(b"\0")
        position = end
    decoded = b"".join(parts)
    return None if data.count(0) else decoded
