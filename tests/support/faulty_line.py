"""A simulated serial line between two ends of a link, in virtual time, with faults by seed."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from boards.link.connection import Connection, MessageReceived, client_connection, server_connection
from boards.link.frames import FrameSplitter, encode_frame
from boards.link.handshake import LinkSettings

BITS_PER_BYTE = 10  # 8N1


@dataclass
class Faults:
    """Share of frames that each fault befalls."""

    dropped: float = 0.0
    duplicated: float = 0.0
    reordered: float = 0.0
    corrupted: float = 0.0


@dataclass
class _Direction:
    """One wire: bytes take their time, then arrive `latency_s` later."""

    baud: int
    latency_s: float
    faults: Faults
    random: random.Random
    free_at: float = 0.0
    num_bytes: int = 0
    arrivals: list[tuple[float, int, bytes]] = field(default_factory=list)
    count: int = 0

    def write(self, data: bytes, now: float) -> None:
        """Send what one end wrote at a time when the wire was free."""
        self.free_at = max(self.free_at, now) + len(data) * BITS_PER_BYTE / self.baud
        self.num_bytes += len(data)
        arrival = self.free_at + self.latency_s
        frame_s = len(data) * BITS_PER_BYTE / self.baud
        if self.random.random() < self.faults.dropped:
            return
        if self.random.random() < self.faults.corrupted:
            damaged = bytearray(data)
            for _ in range(self.random.randint(1, 4)):
                damaged[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            data = bytes(damaged)
        if self.random.random() < self.faults.reordered:
            arrival += 1.5 * frame_s
        self._push(arrival, data)
        if self.random.random() < self.faults.duplicated:
            self._push(arrival + 0.5 * frame_s, data)

    def _push(self, arrival: float, data: bytes) -> None:
        heapq.heappush(self.arrivals, (arrival, self.count, data))
        self.count += 1


class FaultySession:
    """Two ends, their wires, and the clock.

    Attributes:
        client, server: the ends.
        up, down: wires to the server and back.
        now: seconds since the start.
        received: messages that the server and the client got, by channel.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        baud: int = 921600,
        latency_s: float = 0.002,
        client: LinkSettings | None = None,
        server: LinkSettings | None = None,
    ) -> None:
        """Both ends start their handshake at time 0."""
        source = random.Random(seed)
        self.now = 0.0
        self.up = _Direction(baud, latency_s, faults, random.Random(source.random()))
        self.down = _Direction(baud, latency_s, faults, random.Random(source.random()))
        session = source.getrandbits(32)
        self.client = client_connection(session, b"c" * 16, client or LinkSettings(), 0.0)
        self.server = server_connection(session, b"s" * 16, server or LinkSettings(), 0.0)
        self._splitters = {True: FrameSplitter(), False: FrameSplitter()}
        self.at_server: list[tuple[int, bytes]] = []
        self.at_client: list[tuple[int, bytes]] = []
        self.events: list[object] = []

    def run(self, is_done, limit_s: float) -> float:
        """Let time pass until `is_done()`; returns how much of it did.

        Raises AssertionError when limit_s is over.
        """
        start = self.now
        while not is_done():
            assert self.now - start < limit_s, f"not done after {limit_s} s: {self.state()}"
            self._step()
        return self.now - start

    def state(self) -> str:
        """For messages."""
        rows = []
        for name, end in (("client", self.client), ("server", self.server)):
            rows.append(
                f"{name}: {end.state}, {end.send_window.num_unacked} unacknowledged, "
                f"{end.queued_bytes} B queued, expects {end.receive_window.expected}"
            )
        return "; ".join(rows)

    def _step(self) -> None:
        times = []
        for end, wire in ((self.client, self.up), (self.server, self.down)):
            while wire.free_at <= self.now:
                frame = end.next_frame(self.now)
                if frame is None:
                    break
                wire.write(encode_frame(frame), self.now)
            times.append(max(end.wake_at(self.now), wire.free_at))
            if wire.arrivals:
                times.append(wire.arrivals[0][0])
        self.now = max(min(times), self.now + 1e-6)
        for end, wire, is_client in ((self.server, self.up, False), (self.client, self.down, True)):
            while wire.arrivals and wire.arrivals[0][0] <= self.now:
                self._deliver(end, heapq.heappop(wire.arrivals)[2], is_client)
        for end in (self.client, self.server):
            end.tick(self.now)
            self._collect(end)

    def _deliver(self, end: Connection, data: bytes, is_client: bool) -> None:
        for frame in self._splitters[is_client].feed(data):
            if frame.session == end.session:
                end.receive(frame, self.now)

    def _collect(self, end: Connection) -> None:
        target = self.at_client if end is self.client else self.at_server
        while (event := end.next_event()) is not None:
            if isinstance(event, MessageReceived):
                target.append((event.channel, event.data))
            else:
                self.events.append(event)
