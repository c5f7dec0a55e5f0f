"""Messages cut into fragments and put together again: PROTOCOL.md section 5."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from boards.errors import LinkProtocolError
from boards.link.frames import FLAG_END, Frame

NUM_CHANNELS = 3
COMMANDS, BULK, LOGS = range(NUM_CHANNELS)
MAX_MESSAGE_BYTES = 4 << 20


@dataclass(slots=True)
class Outgoing:
    """A message on its way out.

    Attributes:
        size: of it in bytes; rest: what was not given to the line yet.
        is_held: its last fragment waits until somebody clears this.
    """

    size: int
    rest: memoryview
    is_held: bool = False

    @property
    def num_given_bytes(self) -> int:
        """Bytes that were given to the line at least once."""
        return self.size - len(self.rest)


class Outbox:
    """Messages that wait to be sent, by channel; a lower channel goes first."""

    def __init__(self) -> None:
        """Start empty."""
        self._queues: tuple[deque[Outgoing], ...] = tuple(deque() for _ in range(NUM_CHANNELS))

    def add(self, channel: int, data: bytes, *, is_held: bool = False) -> Outgoing:
        """Queue a message. Raises ValueError when it is too long."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {len(data):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
        message = Outgoing(len(data), memoryview(data), is_held)
        self._queues[channel].append(message)
        return message

    @property
    def is_empty(self) -> bool:
        """Whether every message was given to the line."""
        return not any(self._queues)

    @property
    def num_bytes(self) -> int:
        """Bytes that were not given to the line yet."""
        return sum(len(message.rest) for queue in self._queues for message in queue)

    def has_fragment(self, max_payload_bytes: int) -> bool:
        """Whether `next_fragment` has something."""
        return any(_can_go(queue, max_payload_bytes) for queue in self._queues)

    def next_fragment(self, max_payload_bytes: int) -> tuple[int, bytes, bool] | None:
        """Channel and bytes of the next fragment, and whether it ends its message."""
        for channel, queue in enumerate(self._queues):
            if not _can_go(queue, max_payload_bytes):
                continue
            message = queue[0]
            part, message.rest = message.rest[:max_payload_bytes], message.rest[max_payload_bytes:]
            is_end = not message.rest
            if is_end:
                queue.popleft()
            return channel, bytes(part), is_end
        return None


def _can_go(queue: deque[Outgoing], max_payload_bytes: int) -> bool:
    if not queue:
        return False
    return not queue[0].is_held or len(queue[0].rest) > max_payload_bytes


@dataclass(slots=True)
class _Partial:
    data: bytearray = field(default_factory=bytearray)
    num_frames: int = 0


class Inbox:
    """Fragments that wait for the rest of their message, by channel."""

    def __init__(self) -> None:
        """Start empty."""
        self._partial = tuple(_Partial() for _ in range(NUM_CHANNELS))

    def take(self, frame: Frame) -> tuple[bytes, int] | None:
        """Take a fragment in order.

        Returns:
            The message that it completes, and the number of its frames; None: there is more to it.

        Raises:
            LinkProtocolError: the message is too long.
        """
        partial = self._partial[frame.channel]
        partial.data += frame.payload
        partial.num_frames += 1
        if len(partial.data) > MAX_MESSAGE_BYTES:
            raise LinkProtocolError(f"a message is longer than {MAX_MESSAGE_BYTES:,} bytes")
        if not frame.flags & FLAG_END:
            return None
        message = bytes(partial.data), partial.num_frames
        partial.data.clear()
        partial.num_frames = 0
        return message
