"""What was worked out before, by the bytes that it was worked out from.

Clients send the same head, and the same JSON in front of their tensors, with every request. Reading
them again would be most of the interpreter's work on a request.
"""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_ENTRIES = 64
MAX_KEY_BYTES = 2048

T = TypeVar("T")


class Known(Generic[T]):
    """A bounded table; the oldest entry makes room. Belongs to one thread."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._entries: dict[bytes, T] = {}

    def get(self, key: bytes) -> T | None:
        """What was noted for these very bytes."""
        return self._entries.get(key)

    def note(self, key: bytes, value: T) -> None:
        """Keep a value, unless its key is longer than MAX_KEY_BYTES."""
        if len(key) > MAX_KEY_BYTES:
            return
        if len(self._entries) >= MAX_ENTRIES and key not in self._entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value
