"""One session of the link as a state machine: frames and times in, frames and events out.

No sockets, no clocks, no threads: tests run it in virtual time. PROTOCOL.md sections 3 to 5.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from boards.errors import LinkProtocolError, LinkRefusedError
from boards.link.frames import (
    FLAG_ACK_NOW,
    FLAG_END,
    MAC_BYTES,
    MAX_PAYLOAD_BYTES,
    MIN_PAYLOAD_BYTES,
    Frame,
    FrameType,
)
from boards.link.reliability import ReceiveWindow, SendWindow

VERSION_LOWEST = 1
VERSION_HIGHEST = 1
NUM_CHANNELS = 3
COMMANDS, BULK, LOGS = range(NUM_CHANNELS)
MAX_MESSAGE_BYTES = 4 << 20
MAX_WINDOW_FRAMES = 64
NONCE_BYTES = 16

_HELLO_INTERVAL_S = 0.25
_HELLO_INTERVAL_MAX_S = 1.0
_ACK_DELAY_S = 0.01
_IDLE_PING_S = 2.0
_MAX_PROBES = 64
_MAX_ANSWERS = 16


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
class Established:
    """The handshake is done; `software` is the other end's."""

    software: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Echoed:
    """The other end sent a test pattern back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over. error: None after a farewell of the other end."""

    error: Exception | None


Event = Established | MessageReceived | Echoed | Closed


class Connection:
    """One session. Use `client_connection` or `server_connection`.

    Attributes:
        session: its number.
        state: `hello`, `auth`, `open` or `closed`.
        send_window, receive_window: sequence numbers, and counts for tests and people.
    """

    def __init__(
        self, session: int, nonce: bytes, settings: LinkSettings, now: float, *, is_client: bool
    ) -> None:
        """Start the handshake at time `now` (seconds, any origin, never backwards)."""
        self.session = session
        self.settings = settings
        self.is_client = is_client
        self.state = "hello"
        self.send_window = SendWindow()
        self.receive_window = ReceiveWindow(settings.window_frames)
        self._nonce = nonce
        self._events: deque[Event] = deque()
        self._control: deque[Frame] = deque()
        self._probes: deque[Frame] = deque()
        self._queues: tuple[deque[memoryview], ...] = tuple(deque() for _ in range(NUM_CHANNELS))
        self._partial: list[bytearray] = [bytearray() for _ in range(NUM_CHANNELS)]
        self._max_payload = settings.max_payload_bytes
        self._hello = b""
        self._welcome = b""
        self._send_key: bytes | None = None
        self._receive_key: bytes | None = None
        self._session_key: bytes | None = None
        self._last_heard = now
        self._last_sent = now
        self._repeat_at = now
        self._repeat_s = _HELLO_INTERVAL_S
        self._is_ack_due = False
        self._ack_at: float | None = None
        self._last_credit = settings.window_frames
        self._probe_at: float | None = None
        if is_client:
            self._hello = _json(
                versions=[VERSION_LOWEST, VERSION_HIGHEST],
                software=settings.software,
                max_payload=settings.max_payload_bytes,
                window=settings.window_frames,
                nonce=nonce.hex(),
            )

    # --- what the owner does -------------------------------------------------------------

    def send(self, channel: int, data: bytes) -> None:
        """Queue a message. Raises ValueError when it is too long."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {len(data):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
        self._queues[channel].append(memoryview(data))

    def send_test(self, payload: bytes) -> None:
        """Send a pattern outside the sequence; `Echoed` tells when it comes back."""
        self._probes.append(Frame(FrameType.TEST, self.session, payload))

    def close(self) -> None:
        """Say farewell; `next_frame` then gives the last frames."""
        if self.state == "closed":
            return
        if self.state == "open":
            self._control.append(Frame(FrameType.BYE, self.session))
        self.state = "closed"

    def next_event(self) -> Event | None:
        """The oldest event that was not taken; taking messages makes room for more."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, MessageReceived):
            self.receive_window.num_undelivered -= 1
        return event

    @property
    def max_payload_bytes(self) -> int:
        """Longest payload that both ends take."""
        return self._max_payload

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that were not sent a first time."""
        return sum(len(data) for queue in self._queues for data in queue)

    @property
    def is_idle(self) -> bool:
        """Whether everything queued has been acknowledged."""
        return not self.send_window.num_unacked and not any(self._queues)

    # --- frames in -----------------------------------------------------------------------

    def receive(self, frame: Frame, now: float) -> None:
        """Take one frame of this session."""
        if self.state == "closed":
            return
        if frame.type is FrameType.HELLO and not self.is_client:
            self._on_hello(frame, now)
        elif frame.type is FrameType.WELCOME and self.is_client:
            self._on_welcome(frame, now)
        elif frame.type is FrameType.AUTH and not self.is_client:
            self._on_auth(frame, now)
        elif frame.type is FrameType.READY and self.is_client:
            self._on_ready(frame, now)
        elif frame.type is FrameType.REFUSE and self.is_client:
            if self.state != "open":
                self._fail(LinkRefusedError(_text(frame.payload)))
        elif frame.type is FrameType.RESET and self.is_client:
            # anybody can write this frame: with a key it proves nothing, silence will tell
            if self.state == "open" and self._receive_key is None:
                self._fail(LinkProtocolError("the board does not know this session any more"))
        elif self.state == "open":
            self._on_session_frame(frame, now)

    def _on_session_frame(self, frame: Frame, now: float) -> None:
        if self._receive_key is not None:
            checked = _verified(frame, self._receive_key)
            if checked is None:
                return
            frame = checked
        self._last_heard = now
        if frame.type in (FrameType.DATA, FrameType.ACK, FrameType.PING, FrameType.PONG):
            self.send_window.on_ack(frame.ack, frame.credit, frame.received, now)
        if frame.type is FrameType.DATA:
            self._on_data(frame, now)
        elif frame.type is FrameType.PING:
            self._answer(Frame(FrameType.PONG, self.session))
        elif frame.type is FrameType.TEST:
            if len(self._probes) < _MAX_PROBES:
                self._probes.append(Frame(FrameType.ECHO, self.session, frame.payload))
        elif frame.type is FrameType.ECHO:
            self._events.append(Echoed(frame.payload))
        elif frame.type is FrameType.BYE:
            self._fail(None)

    def _on_data(self, frame: Frame, now: float) -> None:
        if frame.channel >= NUM_CHANNELS:
            self._fail(LinkProtocolError(f"channel {frame.channel} does not exist"))
            return
        is_next = frame.sequence == self.receive_window.expected
        self.receive_window.accept(frame)
        for part in self.receive_window.take():
            partial = self._partial[part.channel]
            partial += part.payload
            if len(partial) > MAX_MESSAGE_BYTES:
                self._fail(
                    LinkProtocolError(f"a message is longer than {MAX_MESSAGE_BYTES:,} bytes")
                )
                return
            if part.flags & FLAG_END:
                self._events.append(MessageReceived(part.channel, bytes(partial)))
                self.receive_window.num_undelivered += 1
                partial.clear()
        if not is_next or frame.flags & FLAG_ACK_NOW or self.receive_window.has_gap:
            self._is_ack_due = True
        elif self._ack_at is None:
            self._ack_at = now + _ACK_DELAY_S
        else:
            self._is_ack_due = True  # every second frame

    # --- handshake -----------------------------------------------------------------------

    def _on_hello(self, frame: Frame, now: float) -> None:
        if self._hello:
            if frame.payload == self._hello and self.state in ("auth", "open"):
                self._answer(Frame(FrameType.WELCOME, self.session, self._welcome))
            return
        self._last_heard = now
        try:
            offer = _parsed(frame.payload)
            lowest, highest = (_whole(v, 0, 255) for v in offer["versions"])
            max_payload = _whole(offer["max_payload"], MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)
            window = _whole(offer["window"], 1, MAX_WINDOW_FRAMES)
            software = str(offer["software"])[:200]
            bytes.fromhex(offer["nonce"])
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(f"the greeting cannot be read: {error}")
            return
        version = min(highest, VERSION_HIGHEST)
        if version < max(lowest, VERSION_LOWEST):
            self._refuse(
                f"the host ({software}) speaks link versions {lowest} to {highest}, this board "
                f"({self.settings.software}) {VERSION_LOWEST} to {VERSION_HIGHEST}; update the "
                f"{'board' if lowest > VERSION_HIGHEST else 'host'}"
            )
            return
        self._software = software
        self.send_window.open(window)
        self._hello = frame.payload
        self._max_payload = min(self._max_payload, max_payload)
        self._welcome = _json(
            version=version,
            software=self.settings.software,
            max_payload=self._max_payload,
            window=self.settings.window_frames,
            nonce=self._nonce.hex(),
            auth=self.settings.key is not None,
        )
        self.state = "auth"
        self._control.append(Frame(FrameType.WELCOME, self.session, self._welcome))

    def _on_welcome(self, frame: Frame, now: float) -> None:
        if self.state != "hello":
            return
        try:
            answer = _parsed(frame.payload)
            version = _whole(answer["version"], VERSION_LOWEST, VERSION_HIGHEST)
            self._max_payload = _whole(
                answer["max_payload"], MIN_PAYLOAD_BYTES, self.settings.max_payload_bytes
            )
            window = _whole(answer["window"], 1, MAX_WINDOW_FRAMES)
            self._software = str(answer["software"])[:200]
            bytes.fromhex(answer["nonce"])
            is_keyed = answer["auth"] is True
        except (ValueError, KeyError, TypeError) as error:
            self._fail(LinkProtocolError(f"the board's answer cannot be read: {error}"))
            return
        del version  # there is one so far
        if is_keyed and self.settings.key is None:
            self._fail(LinkRefusedError("the board wants a key; name its file with --link-key"))
            return
        if not is_keyed and self.settings.key is not None:
            self._fail(
                LinkRefusedError(
                    "a key is given but the board has none, so anybody could answer in its place; "
                    "start its agent with --link-key, or connect without one"
                )
            )
            return
        self._last_heard = now
        self.send_window.open(window)
        self._welcome = frame.payload
        self.state = "auth"
        self._repeat_at = now
        self._repeat_s = _HELLO_INTERVAL_S
        self._derive_keys()

    def _on_auth(self, frame: Frame, now: float) -> None:
        if self.state == "hello":
            return
        if self.state == "auth":
            self._derive_keys()
            proof = b"" if self._session_key is None else _mac(self._session_key, b"client")
            if not hmac.compare_digest(frame.payload, proof):
                self._refuse("the key is not the board's: compare the key files of both ends")
                return
            self._last_heard = now
            self.state = "open"
            self._use_keys()
            self._events.append(Established(self._software))
        self._answer(Frame(FrameType.READY, self.session, self._proof(b"server")))

    def _on_ready(self, frame: Frame, now: float) -> None:
        if self.state != "auth":
            return
        if not hmac.compare_digest(frame.payload, self._proof(b"server")):
            self._fail(LinkRefusedError("the board could not prove that it has the key"))
            return
        self._last_heard = now
        self.state = "open"
        self._use_keys()
        self._events.append(Established(self._software))

    def _derive_keys(self) -> None:
        if self.settings.key is not None:
            length = len(self._hello).to_bytes(4, "little")
            transcript = length + self._hello + self._welcome
            context = b"edgeplan-link 1" + self.session.to_bytes(4, "little")
            self._session_key = _mac(self.settings.key, context + transcript)

    def _proof(self, who: bytes) -> bytes:
        return b"" if self._session_key is None else _mac(self._session_key, who)

    def _use_keys(self) -> None:
        if self._session_key is not None:
            up, down = (
                _mac(self._session_key, b"to board"),
                _mac(self._session_key, b"to host"),
            )
            self._send_key, self._receive_key = (up, down) if self.is_client else (down, up)

    def _answer(self, frame: Frame) -> None:
        if len(self._control) < _MAX_ANSWERS:  # who asks without listening gets no more
            self._control.append(frame)

    def _refuse(self, text: str) -> None:
        self._control.append(Frame(FrameType.REFUSE, self.session, text.encode()[:400]))
        self._fail(LinkRefusedError(text))

    def _fail(self, error: Exception | None) -> None:
        self.state = "closed"
        self._events.append(Closed(error))

    # --- frames out ----------------------------------------------------------------------

    def next_frame(self, now: float) -> Frame | None:
        """The next frame to write, if there is one at this time.

        Call it when the line can take a frame: what is handed out counts as sent now.
        """
        frame = self._next_frame(now)
        if frame is None:
            return None
        self._last_sent = now
        if frame.type in (FrameType.DATA, FrameType.ACK, FrameType.PING, FrameType.PONG):
            self._last_credit = self.receive_window.credit
            frame = frame._replace(
                ack=self.receive_window.expected,
                credit=self._last_credit,
                received=self.receive_window.bitmap(),
            )
            self._is_ack_due = False
            self._ack_at = None
        if self._send_key is not None and frame.type not in (FrameType.READY, FrameType.WELCOME):
            code = _mac(self._send_key, frame.header() + frame.payload)[:MAC_BYTES]
            frame = frame._replace(payload=frame.payload + code)
        return frame

    def _next_frame(self, now: float) -> Frame | None:
        if self._control:
            return self._control.popleft()
        if self.state == "closed":
            return None
        if self.state != "open":
            return self._handshake_frame(now)
        lost = self.send_window.next_lost(now)
        if lost is not None:
            return lost
        if self._is_ack_due or (self._ack_at is not None and now >= self._ack_at):
            return Frame(FrameType.ACK, self.session)
        if self._probes:
            return self._probes.popleft()
        if self.send_window.has_room:
            data = self._next_data(now)
            if data is not None:
                return data
        elif self._probe_due(now):
            return Frame(FrameType.PING, self.session)
        if self._is_credit_news:
            return Frame(FrameType.ACK, self.session)
        if now - self._last_sent >= _IDLE_PING_S:
            return Frame(FrameType.PING, self.session)
        return None

    def _handshake_frame(self, now: float) -> Frame | None:
        if not self.is_client or now < self._repeat_at:
            return None
        self._repeat_at = now + self._repeat_s
        self._repeat_s = min(self._repeat_s * 1.5, _HELLO_INTERVAL_MAX_S)
        if self.state == "hello":
            return Frame(FrameType.HELLO, self.session, self._hello)
        return Frame(FrameType.AUTH, self.session, self._proof(b"client"))

    def _next_data(self, now: float) -> Frame | None:
        for channel, queue in enumerate(self._queues):
            if not queue:
                continue
            data = queue[0]
            part, rest = data[: self._max_payload], data[self._max_payload :]
            flags = 0
            if rest:
                queue[0] = rest
            else:
                queue.popleft()
                flags = FLAG_END
            if not any(self._queues):
                flags |= FLAG_ACK_NOW
            frame = Frame(FrameType.DATA, self.session, bytes(part), channel, flags)
            self._probe_at = None
            return self.send_window.assign(frame, now)
        return None

    def _probe_due(self, now: float) -> bool:
        """Whether to ask a receiver without room again."""
        if self.send_window.num_unacked or not any(self._queues):
            return False
        if self._probe_at is None:
            self._probe_at = now + self.send_window.timeout_s
            return False
        if now < self._probe_at:
            return False
        self._probe_at = now + 2 * self.send_window.timeout_s
        return True

    @property
    def _is_credit_news(self) -> bool:
        half = self.settings.window_frames // 2
        return self._last_credit <= half < self.receive_window.credit

    def tick(self, now: float) -> None:
        """Notice that the other end is gone. Call it when `wake_at` has come."""
        if self.state in ("open", "auth") and now - self._last_heard > self.settings.dead_after_s:
            silence = now - self._last_heard
            self._fail(TimeoutError(f"nothing was heard from the other end for {silence:.0f} s"))
        elif self.send_window.is_used_up and any(self._queues):
            self._fail(LinkProtocolError("the session has no sequence number left; connect again"))

    def wake_at(self, now: float) -> float:
        """When `next_frame` or `tick` has something to do if nothing arrives before."""
        if self._control or self._is_ack_due or self._probes:
            return now
        if self.state == "closed":
            return now + _IDLE_PING_S
        if self.state != "open":
            return self._repeat_at if self.is_client else now + _IDLE_PING_S
        if self.send_window.has_lost or (self.send_window.has_room and any(self._queues)):
            return now
        times = [self._last_sent + _IDLE_PING_S]
        times += [t for t in (self._ack_at, self._probe_at) if t is not None]
        lost_at = self.send_window.next_timeout()
        if lost_at is not None:
            times.append(lost_at)
        if self._is_credit_news:
            times.append(now)
        if not self.send_window.has_room and any(self._queues) and self._probe_at is None:
            times.append(now)
        return min(times)


def client_connection(session: int, nonce: bytes, settings: LinkSettings, now: float) -> Connection:
    """The host's end of a new session; `session` and `nonce` are random."""
    return Connection(session, nonce, settings, now, is_client=True)


def server_connection(session: int, nonce: bytes, settings: LinkSettings, now: float) -> Connection:
    """The board's end of the session that a HELLO names; hand that frame to `receive`."""
    return Connection(session, nonce, settings, now, is_client=False)


def _verified(frame: Frame, key: bytes) -> Frame | None:
    """The frame without its code, None when the code is wrong."""
    code = frame.payload[-MAC_BYTES:]
    bare = frame._replace(payload=frame.payload[:-MAC_BYTES])
    expected = _mac(key, bare.header() + bare.payload)[:MAC_BYTES]
    return bare if hmac.compare_digest(code, expected) else None


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()


def _parsed(payload: bytes) -> dict[str, Any]:
    if len(payload) > 2048:
        raise ValueError(f"{len(payload)} bytes are too many")
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


def _text(payload: bytes) -> str:
    return payload[:400].decode("utf-8", "replace")
