"""The handshake as a state machine: greetings, then proofs. PROTOCOL.md section 3."""

from __future__ import annotations

import hmac
from typing import NamedTuple

from boards.errors import LinkProtocolError, LinkRefusedError
from boards.link.frames import Frame, FrameType
from boards.link.handshake import (
    VERSION_HIGHEST,
    VERSION_LOWEST,
    Greeting,
    LinkSettings,
    SessionKeys,
    hello_payload,
    read_hello,
    read_welcome,
    welcome_payload,
)

_HELLO_INTERVAL_S = 0.25
_HELLO_INTERVAL_MAX_S = 1.0

SERVER_FRAMES = frozenset({FrameType.HELLO, FrameType.AUTH})
"""What a board takes during the handshake."""
CLIENT_FRAMES = frozenset({FrameType.WELCOME, FrameType.READY})
"""What a host takes during the handshake."""


class Step(NamedTuple):
    """What a frame of the handshake led to.

    Attributes:
        answer: to send, if any.
        is_news: whether the handshake went on; a repeated frame only has its answer repeated.
    """

    answer: Frame | None
    is_news: bool


class Opening:
    """The handshake of one end.

    Attributes:
        state: `hello`, `auth` or `open`.
        other: greeting of the other end, from state `auth` on.
        max_payload_bytes: longest payload that both ends take, as far as known.
        send_key, receive_key: of the frames of an open session with a key.
        repeat_at: when a host says something again.
    """

    def __init__(
        self, session: int, nonce: bytes, settings: LinkSettings, now: float, *, is_client: bool
    ) -> None:
        """Begin at time `now`."""
        self.state = "hello"
        self.other: Greeting | None = None
        self.max_payload_bytes = settings.max_payload_bytes
        self.send_key: bytes | None = None
        self.receive_key: bytes | None = None
        self.repeat_at = now
        self._repeat_s = _HELLO_INTERVAL_S
        self._session = session
        self._nonce = nonce
        self._settings = settings
        self._is_client = is_client
        self._hello = hello_payload(settings, nonce) if is_client else b""
        self._welcome = b""
        self._keys: SessionKeys | None = None

    def take(self, frame: Frame, now: float) -> Step:
        """Take a frame of `SERVER_FRAMES` or `CLIENT_FRAMES`.

        Raises:
            LinkRefusedError: the two ends do not fit; a board says so in a REFUSE.
            LinkProtocolError: the other end broke the protocol.
        """
        if frame.type is FrameType.HELLO:
            return self._on_hello(frame)
        if frame.type is FrameType.AUTH:
            return self._on_auth(frame)
        if frame.type is FrameType.WELCOME:
            return self._on_welcome(frame, now)
        return self._on_ready(frame)

    def next_frame(self, now: float) -> Frame | None:
        """What a host says, again and again until it is answered."""
        if not self._is_client or self.state == "open" or now < self.repeat_at:
            return None
        self.repeat_at = now + self._repeat_s
        self._repeat_s = min(self._repeat_s * 1.5, _HELLO_INTERVAL_MAX_S)
        if self.state == "hello":
            return Frame(FrameType.HELLO, self._session, self._hello)
        return Frame(FrameType.AUTH, self._session, self._proof(b"client"))

    def _on_hello(self, frame: Frame) -> Step:
        if self._hello:
            is_repeated = frame.payload == self._hello
            return Step(
                self._frame(FrameType.WELCOME, self._welcome) if is_repeated else None, False
            )
        try:
            offer = read_hello(frame.payload)
        except (ValueError, KeyError, TypeError) as error:
            raise LinkRefusedError(f"the greeting cannot be read: {error}") from error
        version = offer.common_version
        if version is None:
            raise LinkRefusedError(
                f"the host ({offer.software}) speaks link versions {offer.lowest} to "
                f"{offer.highest}, this board ({self._settings.software}) {VERSION_LOWEST} to "
                f"{VERSION_HIGHEST}; update the "
                f"{'board' if offer.lowest > VERSION_HIGHEST else 'host'}"
            )
        self._hello = frame.payload
        payload_bytes = min(self.max_payload_bytes, offer.max_payload_bytes)
        self._welcome = welcome_payload(self._settings, self._nonce, version, payload_bytes)
        self._begin_proof(offer, payload_bytes)
        return Step(self._frame(FrameType.WELCOME, self._welcome), True)

    def _on_welcome(self, frame: Frame, now: float) -> Step:
        if self.state != "hello":
            return Step(None, False)
        try:
            answer = read_welcome(frame.payload, self._settings)
        except (ValueError, KeyError, TypeError) as error:
            raise LinkProtocolError(f"the board's answer cannot be read: {error}") from error
        if answer.is_keyed and self._settings.key is None:
            raise LinkRefusedError("the board wants a key; name its file with --link-key")
        if not answer.is_keyed and self._settings.key is not None:
            raise LinkRefusedError(
                "a key is given but the board has none, so anybody could answer in its place; "
                "start its agent with --link-key, or connect without one"
            )
        self._welcome = frame.payload
        self.repeat_at = now
        self._repeat_s = _HELLO_INTERVAL_S
        self._begin_proof(answer, answer.max_payload_bytes)
        return Step(None, True)

    def _on_auth(self, frame: Frame) -> Step:
        if self.state == "hello":
            return Step(None, False)
        is_news = self.state == "auth"
        if is_news:
            if not hmac.compare_digest(frame.payload, self._proof(b"client")):
                raise LinkRefusedError(
                    "the key is not the board's: compare the key files of both ends"
                )
            self._open()
        return Step(self._frame(FrameType.READY, self._proof(b"server")), is_news)

    def _on_ready(self, frame: Frame) -> Step:
        if self.state != "auth":
            return Step(None, False)
        if not hmac.compare_digest(frame.payload, self._proof(b"server")):
            raise LinkRefusedError("the board could not prove that it has the key")
        self._open()
        return Step(None, True)

    def _begin_proof(self, other: Greeting, payload_bytes: int) -> None:
        """Both greetings are known: what is left is to show the key."""
        self.other = other
        self.max_payload_bytes = payload_bytes
        self.state = "auth"
        if self._settings.key is not None:
            self._keys = SessionKeys(self._settings.key, self._session, self._hello, self._welcome)

    def _open(self) -> None:
        self.state = "open"
        if self._keys is not None:
            up, down = self._keys.to_board, self._keys.to_host
            self.send_key, self.receive_key = (up, down) if self._is_client else (down, up)

    def _proof(self, who: bytes) -> bytes:
        return b"" if self._keys is None else self._keys.proof(who)

    def _frame(self, kind: FrameType, payload: bytes) -> Frame:
        return Frame(kind, self._session, payload)
