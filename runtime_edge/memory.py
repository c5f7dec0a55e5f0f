"""Memory that contexts work in: regions, allocators, and what a caller may hand over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from runtime_edge.errors import MemoryRegionError

ALIGNMENT_BYTES = 64
"""Alignment of the arena, of scratch and of weights: a cache line, and the widest vector."""


class MemoryRegion(NamedTuple):
    """Device memory: address and size in bytes. Does not own it."""

    address: int
    nbytes: int


@runtime_checkable
class Allocator(Protocol):
    """Where the runtime takes memory from when the caller wants to decide that.

    Both are called at load and when contexts are made and closed, never during inference.
    """

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Address of `nbytes` bytes of device memory; a multiple of `alignment`.

        Args:
            nbytes: at least 1.
            alignment: power of two; the address is a multiple of it.
        """
        ...

    def free(self, address: int) -> None:
        """Give back what `allocate` returned.

        Args:
            address: of memory that is not in use any more.
        """
        ...


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def caller_region(
    memory: Any, needed_bytes: int, *, hold: Callable[..., Any] | None = None
) -> tuple[int, Any]:
    """Check memory that the caller supplies for a context.

    Args:
        memory: an address (its size is trusted), a `MemoryRegion` or pair (address, nbytes), or
            a writable buffer.
        needed_bytes: what the context needs.
        hold: `Device.hold`, which makes addresses of objects; None takes host buffers only.

    Returns:
        An address aligned to ALIGNMENT_BYTES, and an object to keep while it is used.

    Raises:
        MemoryRegionError: too small, misaligned, or nothing that holds memory.
    """
    holder: Any = None
    if isinstance(memory, int):
        address, size = memory, needed_bytes
    elif isinstance(memory, tuple) and len(memory) == 2:
        address, size = int(memory[0]), int(memory[1])
    else:
        from runtime_edge.buffers import HeldBuffer

        try:
            holder = (hold or HeldBuffer)(memory, is_writable=True)
        except (TypeError, BufferError, ValueError) as error:
            raise MemoryRegionError(
                f"memory for a context: got {type(memory).__name__}, which is no address, no pair "
                f"(address, nbytes), no writable contiguous buffer and no allocator ({error})"
            ) from error
        if isinstance(holder, tuple):
            start, size, holder = *holder, memory
        else:
            start, size = holder.address, holder.nbytes
        address = round_up(start, ALIGNMENT_BYTES)
        size -= address - start
    if address <= 0 or address % ALIGNMENT_BYTES:
        raise MemoryRegionError(
            f"memory for a context: address {address:#x} is not a positive multiple of "
            f"{ALIGNMENT_BYTES}; allocate {ALIGNMENT_BYTES} bytes more and round the address up"
        )
    if size < needed_bytes:
        raise MemoryRegionError(
            f"memory for a context: {size:,} bytes from the first multiple of {ALIGNMENT_BYTES} "
            f"on, but {needed_bytes:,} are needed (Engine.context_bytes)"
            + (
                f"; a buffer of {needed_bytes + ALIGNMENT_BYTES:,} bytes is enough wherever it lies"
                if holder is not None
                else ""
            )
        )
    return address, holder
