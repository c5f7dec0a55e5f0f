"""Memory of request bodies: reused, bounded, and aligned so that a tensor can be read in place."""

from __future__ import annotations

import ctypes
import mmap
import threading

from runtime_edge.memory import ALIGNMENT_BYTES, round_up
from runtime_edge.serve.errors import OverloadError, Refusal

_GRAIN_BYTES = 16 << 10
_KEPT_SHARE = 4  # at most a quarter of the limit stays allocated while no request uses it


class Body:
    """One request body.

    Attributes:
        view: its bytes, writable, exactly as many as the request has.
        address: of the first byte.
    """

    __slots__ = ("_block", "_pool", "address", "view")

    def __init__(self, pool: BodyPool, block: mmap.mmap, nbytes: int, lead: int) -> None:
        """Place the body in a block so that byte `lead` is aligned."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        offset = -(start + lead) % ALIGNMENT_BYTES
        self._pool = pool
        self._block: mmap.mmap | None = block
        self.address = start + offset
        self.view = memoryview(block)[offset : offset + nbytes]

    def release(self) -> None:
        """Give the memory back; nothing may use it any more. Doing so twice is fine."""
        block, self._block = self._block, None
        if block is not None:
            self.view = memoryview(b"")
            self._pool.give_back(block)


class BodyPool:
    """Blocks for bodies, and the account of what else requests hold. Usable from any thread.

    Blocks are mappings of their own: what is given back leaves the process, whatever the allocator
    of the interpreter makes of blocks of these sizes.

    Attributes:
        limit_bytes: of all bodies at once; a single one always fits.
        used_bytes: blocks that are in use; kept_bytes: blocks that wait for another body.
        num_refused: requests for which there was no room.
    """

    def __init__(self, limit_bytes: int) -> None:
        """A pool that holds nothing yet."""
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.num_refused = 0
        self.kept_bytes = 0
        self._most_bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self._lock = threading.Lock()

    def take(self, nbytes: int, lead: int = 0) -> Body | None:
        """Memory for a body of nbytes whose byte `lead` is aligned; None over the limit."""
        size = _block_bytes(nbytes + ALIGNMENT_BYTES)
        with self._lock:
            if self.used_bytes and self.used_bytes + size > self.limit_bytes:
                return None
            self.used_bytes += size
            self._most_bytes = max(self._most_bytes, self.used_bytes)
            free = self._free.get(size)
            block = free.pop() if free else None
            if block is not None:
                self.kept_bytes -= size
        if block is None:
            try:
                block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError:  # the machine has no more, whatever the limit says
                self.unreserve(size)
                return None
        return Body(self, block, nbytes, lead)

    def reserve(self, nbytes: int) -> bool:
        """Count memory that the caller takes elsewhere; false over the limit."""
        with self._lock:
            if self.used_bytes + nbytes > self.limit_bytes:
                return False
            self.used_bytes += nbytes
            return True

    def hold(self, nbytes: int) -> None:
        """Count memory that is taken already, limit or not."""
        with self._lock:
            self.used_bytes += nbytes

    def unreserve(self, nbytes: int) -> None:
        """The end of what was reserved or held."""
        with self._lock:
            self.used_bytes -= nbytes

    def refusal(self, nbytes: int) -> OverloadError:
        """What to tell a client for whose nbytes there is no room now."""
        with self._lock:
            self.num_refused += 1
        return OverloadError(
            Refusal.QUEUE_BYTES,
            f"requests in work hold {self.used_bytes:,} of {self.limit_bytes:,} bytes; there is no "
            f"room for {nbytes:,} more: try again later",
        )

    def trim(self) -> None:
        """Let go of kept blocks that were not needed since the last call."""
        with self._lock:
            surplus = self.used_bytes + self.kept_bytes - self._most_bytes
            self._most_bytes = self.used_bytes
            for blocks in self._free.values():
                while blocks and surplus > 0:
                    size = len(blocks.pop())
                    surplus -= size
                    self.kept_bytes -= size

    def give_back(self, block: mmap.mmap) -> None:
        """Keep a block for the next body, or let it go."""
        size = len(block)
        with self._lock:
            self.used_bytes -= size
            if self.kept_bytes + size > self.limit_bytes // _KEPT_SHARE:
                return
            self.kept_bytes += size
            self._free.setdefault(size, []).append(block)


def _block_bytes(nbytes: int) -> int:
    """Few sizes, so that blocks are found again: grains of an eighth of the next power of two."""
    grain = max(_GRAIN_BYTES, (1 << nbytes.bit_length()) // 8)
    return round_up(nbytes, grain)
