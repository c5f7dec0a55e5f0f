"""One session of the link as a state machine: frames and times in, frames and events out.

No sockets, no clocks, no threads: tests run it in virtual time. PROTOCOL.md sections 3 to 5.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from boards.errors import LinkError, LinkProtocolError, LinkRefusedError
from boards.link.channels import NUM_CHANNELS, Inbox, Outbox, Outgoing
from boards.link.frames import FLAG_ACK_NOW, FLAG_END, Frame, FrameType
from boards.link.handshake import LinkSettings, signed, verified
from boards.link.opening import CLIENT_FRAMES, SERVER_FRAMES, Opening
from boards.link.reliability import ReceiveWindow, SendWindow

_ACK_DELAY_S = 0.01
_IDLE_PING_S = 2.0
_MAX_PROBES = 64
_MAX_ANSWERS = 16
_MAX_REASON_BYTES = 400


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is done; `software` is the other end's."""

    software: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message, and the number of frames that it took."""

    channel: int
    data: bytes
    num_frames: int = 1


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
        self._events: deque[Event] = deque()
        self._control: deque[Frame] = deque()
        self._probes: deque[Frame] = deque()
        self._outbox = Outbox()
        self._inbox = Inbox()
        self._opening = Opening(session, nonce, settings, now, is_client=is_client)
        self._last_heard = now
        self._last_sent = now
        self._is_ack_due = False
        self._ack_at: float | None = None
        self._last_credit = settings.window_frames
        self._probe_at: float | None = None

    # --- what the owner does -------------------------------------------------------------

    def send(self, channel: int, data: bytes, *, is_held: bool = False) -> Outgoing:
        """Queue a message. Raises ValueError when it is too long.

        Returns:
            How far it has come; with is_held its last fragment, and what is queued behind it on
            this channel, wait until that attribute of it is cleared.
        """
        return self._outbox.add(channel, data, is_held=is_held)

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
            self.receive_window.num_undelivered -= event.num_frames
        return event

    @property
    def max_payload_bytes(self) -> int:
        """Longest payload that both ends take."""
        return self._opening.max_payload_bytes

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that were not sent a first time."""
        return self._outbox.num_bytes

    @property
    def is_idle(self) -> bool:
        """Whether everything queued has been acknowledged."""
        return not self.send_window.num_unacked and self._outbox.is_empty

    # --- frames in -----------------------------------------------------------------------

    def receive(self, frame: Frame, now: float) -> None:
        """Take one frame of this session."""
        if self.state == "closed":
            return
        if frame.type in (CLIENT_FRAMES if self.is_client else SERVER_FRAMES):
            self._on_handshake(frame, now)
        elif frame.type is FrameType.REFUSE and self.is_client:
            if self.state != "open":
                self._fail(LinkRefusedError(_text(frame.payload)))
        elif frame.type is FrameType.RESET and self.is_client:
            # anybody can write this frame: with a key it proves nothing, silence will tell
            if self.state == "open" and self._opening.receive_key is None:
                self._fail(LinkProtocolError("the board does not know this session any more"))
        elif self.state == "open":
            self._on_session_frame(frame, now)

    def _on_session_frame(self, frame: Frame, now: float) -> None:
        if self._opening.receive_key is not None:
            checked = verified(frame, self._opening.receive_key)
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
            try:
                message = self._inbox.take(part)
            except LinkProtocolError as error:
                self._fail(error)
                return
            if message is not None:
                self._events.append(MessageReceived(part.channel, *message))
                self.receive_window.num_undelivered += message[1]
        if not is_next or frame.flags & FLAG_ACK_NOW or self.receive_window.has_gap:
            self._is_ack_due = True
        elif self._ack_at is None:
            self._ack_at = now + _ACK_DELAY_S
        else:
            self._is_ack_due = True  # every second frame

    def _on_handshake(self, frame: Frame, now: float) -> None:
        try:
            step = self._opening.take(frame, now)
        except LinkError as error:
            if not self.is_client:
                text = str(error).encode()[:_MAX_REASON_BYTES]
                self._control.append(Frame(FrameType.REFUSE, self.session, text))
            self._fail(error)
            return
        if step.answer is not None:
            self._answer(step.answer)
        if not step.is_news:
            return
        self._last_heard = now
        self.state = self._opening.state
        other = self._opening.other
        assert other is not None  # known from the first greeting on
        if self.state == "auth":
            self.send_window.open(other.window_frames)
        elif self.state == "open":
            self._events.append(Established(other.software))

    def _answer(self, frame: Frame) -> None:
        if len(self._control) < _MAX_ANSWERS:  # who asks without listening gets no more
            self._control.append(frame)

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
        if self._opening.send_key is not None and frame.type not in (
            FrameType.READY,
            FrameType.WELCOME,
        ):
            frame = signed(frame, self._opening.send_key)
        return frame

    def _next_frame(self, now: float) -> Frame | None:
        if self._control:
            return self._control.popleft()
        if self.state == "closed":
            return None
        if self.state != "open":
            return self._opening.next_frame(now)
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

    def _next_data(self, now: float) -> Frame | None:
        fragment = self._outbox.next_fragment(self.max_payload_bytes)
        if fragment is None:
            return None
        channel, payload, is_end = fragment
        flags = FLAG_END if is_end else 0
        if not self._has_data:
            flags |= FLAG_ACK_NOW
        self._probe_at = None
        return self.send_window.assign(
            Frame(FrameType.DATA, self.session, payload, channel, flags), now
        )

    @property
    def _has_data(self) -> bool:
        """Whether a fragment of a message could be sent."""
        return self._outbox.has_fragment(self.max_payload_bytes)

    def _probe_due(self, now: float) -> bool:
        """Whether to ask a receiver without room again."""
        if self.send_window.num_unacked or not self._has_data:
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
        elif self.send_window.is_used_up and self._has_data:
            self._fail(LinkProtocolError("the session has no sequence number left; connect again"))

    def wake_at(self, now: float) -> float:
        """When `next_frame` or `tick` has something to do if nothing arrives before."""
        if self._control or self._is_ack_due or self._probes:
            return now
        if self.state == "closed":
            return now + _IDLE_PING_S
        if self.state != "open":
            return self._opening.repeat_at if self.is_client else now + _IDLE_PING_S
        if self.send_window.has_lost or (self.send_window.has_room and self._has_data):
            return now
        times = [self._last_sent + _IDLE_PING_S]
        times += [t for t in (self._ack_at, self._probe_at) if t is not None]
        lost_at = self.send_window.next_timeout()
        if lost_at is not None:
            times.append(lost_at)
        if self._is_credit_news:
            times.append(now)
        if not self.send_window.has_room and self._has_data and self._probe_at is None:
            times.append(now)
        return min(times)


def client_connection(session: int, nonce: bytes, settings: LinkSettings, now: float) -> Connection:
    """The host's end of a new session; `session` and `nonce` are random."""
    return Connection(session, nonce, settings, now, is_client=True)


def server_connection(session: int, nonce: bytes, settings: LinkSettings, now: float) -> Connection:
    """The board's end of the session that a HELLO names; hand that frame to `receive`."""
    return Connection(session, nonce, settings, now, is_client=False)


def _text(payload: bytes) -> str:
    return payload[:_MAX_REASON_BYTES].decode("utf-8", "replace")
