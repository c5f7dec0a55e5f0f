"""Greetings and keys of a session: PROTOCOL.md section 3."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

from boards.link.frames import (
    MAC_BYTES,
    MAX_PAYLOAD_BYTES,
    MIN_PAYLOAD_BYTES,
    Frame,
)

VERSION_LOWEST = 1
VERSION_HIGHEST = 1
MAX_WINDOW_FRAMES = 64
_MAX_GREETING_BYTES = 2048
_MAX_SOFTWARE_CHARS = 200


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What one end offers.

    Attributes:
        software: name and version, for the other end's messages.
        max_payload_bytes: longest payload that it takes; the smaller of both ends counts.
        window_frames: frames that it can hold out of order.
        dead_after_s: silence after which the other end counts as gone.
        key: secret that both ends share, None for none.
    """

    software: str = "edgeplan"
    max_payload_bytes: int = 2048
    window_frames: int = MAX_WINDOW_FRAMES
    dead_after_s: float = 10.0
    key: bytes | None = None

    def __post_init__(self) -> None:
        if not MIN_PAYLOAD_BYTES <= self.max_payload_bytes <= MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"max_payload_bytes is {self.max_payload_bytes}; allowed are "
                f"{MIN_PAYLOAD_BYTES} to {MAX_PAYLOAD_BYTES}"
            )
        if not 1 <= self.window_frames <= MAX_WINDOW_FRAMES:
            raise ValueError(
                f"window_frames is {self.window_frames}; allowed are 1 to {MAX_WINDOW_FRAMES}"
            )


@dataclass(frozen=True, slots=True)
class Greeting:
    """A HELLO or WELCOME that was read and checked.

    Attributes:
        lowest, highest: versions; equal in a WELCOME.
        software: of the other end.
        max_payload_bytes, window_frames: that it takes.
        is_keyed: of a WELCOME: the board wants a key.
    """

    lowest: int
    highest: int
    software: str
    max_payload_bytes: int
    window_frames: int
    is_keyed: bool = False

    @property
    def common_version(self) -> int | None:
        """The highest version that both ends know."""
        version = min(self.highest, VERSION_HIGHEST)
        return version if version >= max(self.lowest, VERSION_LOWEST) else None


def hello_payload(settings: LinkSettings, nonce: bytes) -> bytes:
    """Payload of a HELLO."""
    return _json(
        versions=[VERSION_LOWEST, VERSION_HIGHEST],
        software=settings.software,
        max_payload=settings.max_payload_bytes,
        window=settings.window_frames,
        nonce=nonce.hex(),
    )


def read_hello(payload: bytes) -> Greeting:
    """A HELLO. Raises ValueError, KeyError or TypeError when it cannot be read."""
    offer = _parsed(payload)
    lowest, highest = (_whole(value, 0, 255) for value in offer["versions"])
    return _greeting(offer, lowest, highest, MAX_PAYLOAD_BYTES)


def welcome_payload(
    settings: LinkSettings, nonce: bytes, version: int, max_payload_bytes: int
) -> bytes:
    """Payload of a WELCOME."""
    return _json(
        version=version,
        software=settings.software,
        max_payload=max_payload_bytes,
        window=settings.window_frames,
        nonce=nonce.hex(),
        auth=settings.key is not None,
    )


def read_welcome(payload: bytes, settings: LinkSettings) -> Greeting:
    """A WELCOME. Raises ValueError, KeyError or TypeError when it cannot be read."""
    answer = _parsed(payload)
    version = _whole(answer["version"], VERSION_LOWEST, VERSION_HIGHEST)
    return _greeting(answer, version, version, settings.max_payload_bytes)


class SessionKeys:
    """What follows from the key that both ends share and from this session's greetings."""

    def __init__(self, key: bytes, session: int, hello: bytes, welcome: bytes) -> None:
        """Derive; hello and welcome are the payloads of those frames."""
        context = b"edgeplan-link 1" + session.to_bytes(4, "little")
        length = len(hello).to_bytes(4, "little")
        self._key = _mac(key, context + length + hello + welcome)
        self.to_board = _mac(self._key, b"to board")
        self.to_host = _mac(self._key, b"to host")

    def proof(self, who: bytes) -> bytes:
        """What `client` or `server` shows to have the key."""
        return _mac(self._key, who)


def signed(frame: Frame, key: bytes) -> Frame:
    """The frame with its code behind the payload."""
    code = _mac(key, frame.header() + frame.payload)[:MAC_BYTES]
    return frame._replace(payload=frame.payload + code)


def verified(frame: Frame, key: bytes) -> Frame | None:
    """The frame without its code, None when the code is wrong."""
    code = frame.payload[-MAC_BYTES:]
    bare = frame._replace(payload=frame.payload[:-MAC_BYTES])
    expected = _mac(key, bare.header() + bare.payload)[:MAC_BYTES]
    return bare if hmac.compare_digest(code, expected) else None


def _greeting(content: dict[str, Any], lowest: int, highest: int, most: int) -> Greeting:
    bytes.fromhex(content["nonce"])
    return Greeting(
        lowest,
        highest,
        str(content["software"])[:_MAX_SOFTWARE_CHARS],
        _whole(content["max_payload"], MIN_PAYLOAD_BYTES, most),
        _whole(content["window"], 1, MAX_WINDOW_FRAMES),
        content.get("auth") is True,
    )


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()


def _parsed(payload: bytes) -> dict[str, Any]:
    if len(payload) > _MAX_GREETING_BYTES:
        raise ValueError(f"{len(payload)} bytes, allowed are {_MAX_GREETING_BYTES}")
    try:
        content = json.loads(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _whole(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value
