"""Selective repeat: sequence numbers, what is lost, what is held. PROTOCOL.md section 4."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from boards.link.frames import Frame

_BITMAP_BITS = 64
_REORDER = 3  # frames sent later that arrive before an older one counts as lost
_FIRST_TIMEOUT_S = 0.5
_MIN_TIMEOUT_S = 0.05
_MAX_TIMEOUT_S = 4.0
MAX_SEQUENCE = (1 << 32) - 1


@dataclass(slots=True)
class _Sent:
    frame: Frame
    order: int
    sent_at: float
    num_sent: int = 1
    is_lost: bool = False


class SendWindow:
    """Frames that the other end has not acknowledged.

    Attributes:
        limit: most frames in flight, from the other end's greeting.
        num_resent: frames sent again so far; num_sent: all sent, repeats included.
    """

    def __init__(self) -> None:
        """Start at sequence 0."""
        self.limit = 0
        self.num_resent = 0
        self.num_sent = 0
        self._next = 0
        self._end = 0  # first sequence that the other end cannot take
        self._unacked: dict[int, _Sent] = {}
        self._lost: deque[int] = deque()
        self._order = 0
        self._newest_acked = -1
        self._srtt_s: float | None = None
        self._rttvar_s = 0.0
        self._backoff = 1.0

    def open(self, window_frames: int) -> None:
        """Take the window of the other end's greeting."""
        self.limit = self._end = window_frames

    @property
    def num_unacked(self) -> int:
        """Frames in flight."""
        return len(self._unacked)

    @property
    def has_lost(self) -> bool:
        """Whether a frame waits to be sent again."""
        return bool(self._lost)

    @property
    def has_room(self) -> bool:
        """Whether a new frame may be sent."""
        return len(self._unacked) < self.limit and self._next < self._end and not self.is_used_up

    @property
    def is_used_up(self) -> bool:
        """Whether the session has no sequence number left."""
        return self._next > MAX_SEQUENCE

    @property
    def timeout_s(self) -> float:
        """Time without acknowledgement after which a frame counts as lost."""
        if self._srtt_s is None:
            base = _FIRST_TIMEOUT_S
        else:
            base = max(_MIN_TIMEOUT_S, self._srtt_s + max(0.02, 4 * self._rttvar_s))
        return min(_MAX_TIMEOUT_S, base * self._backoff)

    def assign(self, frame: Frame, now: float) -> Frame:
        """Give a new frame its sequence number and remember it."""
        frame = frame._replace(sequence=self._next)
        self._unacked[self._next] = _Sent(frame, self._order, now)
        self._next += 1
        self._order += 1
        self.num_sent += 1
        return frame

    def on_ack(self, ack: int, credit: int, received: int, now: float) -> None:
        """Take what the other end says it has. A statement older than the last is harmless."""
        if ack > self._next:
            return  # acknowledges what was never sent
        self._end = max(self._end, ack + credit)
        newest = -1
        for sequence in [s for s in self._unacked if s < ack or self._has(s, ack, received)]:
            sent = self._unacked.pop(sequence)
            age = now - sent.sent_at
            if sent.num_sent == 1:
                self._measure(age)
            if sent.num_sent == 1 or (self._srtt_s is not None and age >= 0.7 * self._srtt_s):
                newest = max(newest, sent.order)
        if newest < 0:
            return
        self._backoff = 1.0
        self._newest_acked = max(self._newest_acked, newest)
        for sequence, sent in self._unacked.items():
            if not sent.is_lost and sent.order + _REORDER <= self._newest_acked:
                self._lose(sequence, sent)

    def next_lost(self, now: float) -> Frame | None:
        """A frame to send again, if one is lost by now."""
        self._time_out(now)
        while self._lost:
            sequence = self._lost.popleft()
            sent = self._unacked.get(sequence)
            if sent is None:
                continue
            sent.is_lost = False
            sent.order = self._order
            sent.sent_at = now
            sent.num_sent += 1
            self._order += 1
            self.num_sent += 1
            self.num_resent += 1
            return sent.frame
        return None

    def next_timeout(self) -> float | None:
        """When the oldest frame in flight counts as lost."""
        if not self._unacked:
            return None
        return min(sent.sent_at for sent in self._unacked.values()) + self.timeout_s

    def _time_out(self, now: float) -> None:
        if self._lost or not self._unacked:
            return
        limit = now - self.timeout_s
        late = [(s, sent) for s, sent in self._unacked.items() if sent.sent_at <= limit]
        if late:
            self._backoff = min(self._backoff * 2, 16.0)
        for sequence, sent in late:
            self._lose(sequence, sent)

    def _lose(self, sequence: int, sent: _Sent) -> None:
        sent.is_lost = True
        self._lost.append(sequence)

    def _measure(self, rtt_s: float) -> None:
        if self._srtt_s is None:
            self._srtt_s, self._rttvar_s = rtt_s, rtt_s / 2
            return
        self._rttvar_s += (abs(rtt_s - self._srtt_s) - self._rttvar_s) / 4
        self._srtt_s += (rtt_s - self._srtt_s) / 8

    @staticmethod
    def _has(sequence: int, ack: int, received: int) -> bool:
        position = sequence - ack - 1
        return 0 <= position < _BITMAP_BITS and bool(received >> position & 1)


class ReceiveWindow:
    """Frames that arrived, in order or not.

    Attributes:
        expected: sequence that comes next.
        num_undelivered: frames of messages that wait for their reader; they take credit.
        num_duplicates: frames that came twice.
    """

    def __init__(self, size: int) -> None:
        """Hold at most `size` frames, up to 64."""
        self.size = size
        self.expected = 0
        self.num_undelivered = 0
        self.num_duplicates = 0
        self._held: dict[int, Frame] = {}

    @property
    def has_gap(self) -> bool:
        """Whether frames are held that wait for an earlier one."""
        return bool(self._held)

    @property
    def credit(self) -> int:
        """Frames from `expected` on that can be taken."""
        return max(0, self.size - self.num_undelivered)

    def bitmap(self) -> int:
        """Bit i: frame expected + 1 + i is held."""
        bits = 0
        for sequence in self._held:
            bits |= 1 << (sequence - self.expected - 1)
        return bits

    def accept(self, frame: Frame) -> None:
        """Hold a frame, unless it is known already or lies beyond the window."""
        if frame.sequence < self.expected or frame.sequence in self._held:
            self.num_duplicates += 1
        elif frame.sequence < self.expected + self.size:
            self._held[frame.sequence] = frame

    def take(self) -> Iterator[Frame]:
        """Frames that are next in order."""
        while (frame := self._held.pop(self.expected, None)) is not None:
            self.expected += 1
            yield frame
