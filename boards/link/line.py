"""A transport with frames on it: what both ends of a link do with bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boards.link.frames import Frame, FrameSplitter, encode_frame
from boards.link.transports.base import Transport


class Line:
    """Cuts what arrives into frames and writes frames as fast as the transport takes them.

    Attributes:
        transport: underneath.
        splitter: counts frames and keeps the noise between them.
    """

    def __init__(self, transport: Transport) -> None:
        """Take over the transport."""
        self.transport = transport
        self.splitter = FrameSplitter()
        self._pending = memoryview(b"")

    @property
    def is_blocked(self) -> bool:
        """Whether bytes wait until the transport takes more."""
        return bool(self._pending)

    def frames(self) -> Iterator[Frame]:
        """Frames that have arrived. Raises LinkLostError."""
        while data := self.transport.read():
            yield from self.splitter.feed(data)
            if len(data) < 1 << 12:
                return

    def write(self, next_frame: Callable[[], Frame | None]) -> None:
        """Write frames until there are none or the transport is full. Raises LinkLostError."""
        while True:
            while self._pending:
                count = self.transport.write(self._pending)
                if not count:
                    return
                self._pending = self._pending[count:]
            parts: list[bytes] = []
            size = 0
            while size < self.transport.batch_bytes and (frame := next_frame()) is not None:
                parts.append(encode_frame(frame))
                size += len(parts[-1])
            if not parts:
                return
            self._pending = memoryview(b"".join(parts))

    def forget_pending(self) -> None:
        """Drop what the transport has not taken, e.g. when its rate changes."""
        self._pending = memoryview(b"")

    def close(self) -> None:
        """Close the transport."""
        self.transport.close()
