"""The board's end of one line: greetings, one session at a time, and the rate of a serial line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from boards.errors import LinkError, LinkLostError
from boards.link.connection import Closed, Connection, Event, server_connection
from boards.link.frames import Frame, FrameType
from boards.link.handshake import LinkSettings
from boards.link.line import Line
from boards.link.messages import encode_message
from boards.link.transports.base import Transport

PROVING_S = 2.0  # a new rate must be confirmed within this time
SILENCE_S = 5.0  # at a raised rate this long a silence goes back to the first one
_SWITCH_WAIT_S = 0.3
_RESET_INTERVAL_S = 0.2
_NEVER_ANSWERED = frozenset({FrameType.RESET, FrameType.REFUSE, FrameType.BYE, FrameType.WELCOME})


class ServerLine:
    """Serves the hosts that come over one line, one after the other.

    A later greeting replaces the session before it as soon as it has proved its key.

    Attributes:
        line: underneath; connection: the open session, None between two.
    """

    def __init__(
        self,
        transport: Transport,
        settings: LinkSettings,
        now: float,
        *,
        base_rate: tuple[int, int] | None = None,
    ) -> None:
        """Take over a transport.

        Args:
            transport: of the line.
            settings: of the board's end.
            now: time.
            base_rate: baud and stop bits that a serial line has now; None for other lines.
        """
        self.line = Line(transport)
        self.connection: Connection | None = None
        self._settings = settings
        self._candidate: Connection | None = None
        self._base_rate = base_rate
        self._rate = base_rate
        self._wanted: tuple[int, int] | None = None
        self._switch_at = 0.0
        self._proving_until: float | None = None
        self._heard_at = now
        self._reset: Frame | None = None
        self._reset_at = now - _RESET_INTERVAL_S

    @property
    def is_open(self) -> bool:
        """Whether a host is connected."""
        return self.connection is not None and self.connection.state == "open"

    @property
    def unsent_bytes(self) -> int:
        """Messages that the host has not taken yet."""
        return self.connection.queued_bytes if self.connection is not None else 0

    def send(self, channel: int, fields: Mapping[str, Any], body: bytes = b"") -> None:
        """Queue a message for the host, if there is one."""
        if self.connection is not None and self.connection.state == "open":
            self.connection.send(channel, encode_message(fields, body))

    def receive(self, now: float) -> None:
        """Take what has arrived. Raises LinkLostError when the line is gone."""
        for frame in self.line.frames():
            self._heard_at = now
            self._dispatch(frame, now)

    def write(self, now: float) -> None:
        """Write what there is to write. Raises LinkLostError when the line is gone."""
        self.line.write(lambda: self._next_frame(now))

    def tick(self, now: float) -> None:
        """Let time pass: dead hosts, rates to try, to confirm and to give up."""
        for connection in (self.connection, self._candidate):
            if connection is not None:
                connection.tick(now)
        if self._candidate is not None and self._candidate.state == "closed":
            self._flush(self._candidate, now)
            self._candidate = None
        if self._wanted is not None and now >= self._switch_at:
            rate, self._wanted = self._wanted, None
            self._set_rate(rate)
            self._proving_until = now + PROVING_S
            self._heard_at = now
        if self._base_rate is None or self._rate == self._base_rate:
            return
        is_unproved = self._proving_until is not None and now > self._proving_until
        if is_unproved or now > self._heard_at + SILENCE_S:
            self._proving_until = None
            self._set_rate(self._base_rate)

    def wake_at(self, now: float) -> float:
        """When `tick` or `write` has something to do."""
        times = [now + 1.0]
        times += [c.wake_at(now) for c in (self.connection, self._candidate) if c is not None]
        if self._wanted is not None:
            times.append(self._switch_at)
        if self._proving_until is not None:
            times.append(self._proving_until)
        return min(times)

    def next_event(self) -> Event | None:
        """The oldest event of the session."""
        if self.connection is None:
            return None
        event = self.connection.next_event()
        if isinstance(event, Closed):
            self.connection = None
        return event

    def want_rate(self, baud: int, stop_bits: int, now: float) -> None:
        """Change the rate once the answer to the host is out; `keep_rate` must follow soon.

        Raises:
            LinkError: this line has no rate.
        """
        if self._base_rate is None:
            raise LinkError(f"{self.line.transport.name}: is no serial line, it has no rate")
        self._wanted = (baud, stop_bits)
        self._switch_at = now + _SWITCH_WAIT_S / 4

    def keep_rate(self) -> None:
        """The host hears us at the new rate."""
        self._proving_until = None

    def close(self, now: float) -> None:
        """Say farewell and give the line back."""
        if self.connection is not None:
            self.connection.close()
            self._flush(self.connection, now)
        self.line.close()

    def _flush(self, connection: Connection, now: float) -> None:
        try:
            self.line.write(lambda: connection.next_frame(now))
        except LinkLostError:
            return  # who has gone needs no last words

    def _set_rate(self, rate: tuple[int, int]) -> None:
        self.line.forget_pending()
        try:
            self.line.transport.set_rate(*rate)
            self._rate = rate
        except LinkError:
            if rate == self._base_rate or self._base_rate is None:
                raise
            self.line.transport.set_rate(*self._base_rate)
            self._rate = self._base_rate

    def _next_frame(self, now: float) -> Frame | None:
        if self._reset is not None:
            frame, self._reset = self._reset, None
            return frame
        for connection in (self._candidate, self.connection):
            if connection is not None:
                frame_or_none = connection.next_frame(now)
                if frame_or_none is not None:
                    return frame_or_none
        return None

    def _dispatch(self, frame: Frame, now: float) -> None:
        if self.connection is not None and frame.session == self.connection.session:
            self.connection.receive(frame, now)
        elif self._candidate is not None and frame.session == self._candidate.session:
            self._candidate.receive(frame, now)
            if self._candidate.state == "open":
                self.connection, self._candidate = self._candidate, None
        elif frame.type is FrameType.HELLO:
            if self._candidate is not None:
                self._flush(self._candidate, now)
            self._candidate = server_connection(frame.session, os.urandom(16), self._settings, now)
            self._candidate.receive(frame, now)
        elif frame.type not in _NEVER_ANSWERED and now >= self._reset_at + _RESET_INTERVAL_S:
            self._reset = Frame(FrameType.RESET, frame.session)
            self._reset_at = now
