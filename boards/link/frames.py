"""Frames on the wire: PROTOCOL.md section 2."""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from boards.link.cobs import cobs_decode, cobs_encode

LAYOUT = 0xE1
HEADER = struct.Struct("<BBBBIIIHQ")
"""layout, type, channel, flags, session, sequence, ack, credit, received."""
_CRC = struct.Struct("<I")

MAX_PAYLOAD_BYTES = 32768
MIN_PAYLOAD_BYTES = 64
MAC_BYTES = 16
MAX_BODY_BYTES = HEADER.size + MAX_PAYLOAD_BYTES + MAC_BYTES
MAX_ENCODED_BYTES = MAX_BODY_BYTES + _CRC.size + (MAX_BODY_BYTES + _CRC.size) // 254 + 1
MAX_NOISE_BYTES = 4096


class FrameType(enum.IntEnum):
    """Types of frames."""

    HELLO = 1
    WELCOME = 2
    AUTH = 3
    READY = 4
    REFUSE = 5
    DATA = 6
    ACK = 7
    PING = 8
    PONG = 9
    TEST = 10
    ECHO = 11
    BYE = 12
    RESET = 13


FLAG_END = 1  # last fragment of a message
FLAG_ACK_NOW = 2  # the sender waits for the answer
_KNOWN_FLAGS = FLAG_END | FLAG_ACK_NOW
_TYPES = frozenset(FrameType)


class Frame(NamedTuple):
    """One frame.

    Attributes:
        type: of the frame; channel, flags: of DATA, else 0.
        session: number that the client chose.
        sequence: of DATA, else 0.
        ack: sequence that the sender of this frame expects next.
        credit: frames from `ack` on that it can take.
        received: bit i: it holds frame ack + 1 + i already.
        payload: content; in a session with a key also its last 16 bytes, the code.
    """

    type: FrameType
    session: int
    payload: bytes = b""
    channel: int = 0
    flags: int = 0
    sequence: int = 0
    ack: int = 0
    credit: int = 0
    received: int = 0

    def header(self) -> bytes:
        """The packed header."""
        return HEADER.pack(
            LAYOUT,
            self.type,
            self.channel,
            self.flags,
            self.session,
            self.sequence,
            self.ack,
            self.credit,
            self.received,
        )


def encode_frame(frame: Frame) -> bytes:
    """Bytes on the wire, with a zero before and after."""
    body = frame.header() + frame.payload
    return b"\0" + cobs_encode(body + _CRC.pack(zlib.crc32(body))) + b"\0"


def decode_frame(encoded: bytes) -> Frame | None:
    """A frame from the bytes between two zeros; None when they are no sound frame."""
    if not HEADER.size + _CRC.size < len(encoded) <= MAX_ENCODED_BYTES:
        return None
    data = cobs_decode(encoded)
    if data is None or not HEADER.size + _CRC.size <= len(data) <= MAX_BODY_BYTES + _CRC.size:
        return None
    body = data[: -_CRC.size]
    if zlib.crc32(body) != _CRC.unpack_from(data, len(body))[0]:
        return None
    layout, kind, channel, flags, session, sequence, ack, credit, received = HEADER.unpack_from(
        body
    )
    if layout != LAYOUT or kind not in _TYPES or flags & ~_KNOWN_FLAGS:
        return None
    return Frame(
        FrameType(kind),
        session,
        body[HEADER.size :],
        channel,
        flags,
        sequence,
        ack,
        credit,
        received,
    )


class FrameSplitter:
    """Cuts a stream of bytes into frames; everything else on the line is noise.

    Attributes:
        num_frames: sound frames so far.
        num_bad: pieces between zeros that were none.
        noise: the last bytes outside frames, e.g. what a kernel prints on its console.
    """

    def __init__(self) -> None:
        """Start between frames."""
        self.num_frames = 0
        self.num_bad = 0
        self.noise = b""
        self._pending = bytearray()
        self._is_overlong = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes of any amount; yields the frames that they complete."""
        *pieces, rest = data.split(b"\0")
        for piece in pieces:
            self._append(piece)
            encoded, is_overlong = bytes(self._pending), self._is_overlong
            self._pending.clear()
            self._is_overlong = False
            if not encoded and not is_overlong:
                continue
            frame = None if is_overlong else decode_frame(encoded)
            if frame is None:
                self.num_bad += 1
                self.noise = (self.noise + encoded)[-MAX_NOISE_BYTES:]
            else:
                self.num_frames += 1
                yield frame
        self._append(rest)

    def pending_text(self) -> bytes:
        """Bytes since the last zero: a login prompt, for example."""
        return bytes(self._pending)

    def _append(self, piece: bytes) -> None:
        room = MAX_ENCODED_BYTES - len(self._pending)
        if len(piece) > room:
            # no frame is this long: keep the end, which may be text for people
            self._is_overlong = True
            self._pending = (self._pending + piece)[-MAX_NOISE_BYTES:]
        else:
            self._pending += piece
