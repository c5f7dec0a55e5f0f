"""Device memory that the plans of one stream share: they never run at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from runtime_edge.device.base import Device
from runtime_edge.serve.memory_report import REGION_ALIGNMENT_BYTES, MemoryNeeds


class Region:
    """Device memory of a stream, given back when nothing uses it any more.

    Attributes:
        address, nbytes: of the region; address 0 when it is empty.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        """Allocate.

        Raises:
            DeviceError: the memory was refused.
        """
        self.nbytes = nbytes
        self._device = device
        self._num_users = 0
        self.address = device.allocate(nbytes, REGION_ALIGNMENT_BYTES) if nbytes else 0

    def retain(self) -> Region:
        """Count one more user."""
        self._num_users += 1
        return self

    def release(self) -> None:
        """One user less; the last one frees the memory."""
        self._num_users -= 1
        if self._num_users == 0 and self.address:
            address, self.address = self.address, 0
            self._device.free(address)


@dataclass(slots=True)
class StreamMemory:
    """Memory of one stream.

    Attributes:
        arena: activations and scratch; io: bindings.
    """

    device: Device
    arena: Region | None = None
    io: Region | None = None

    def reserve(self, arena_bytes: int, io_bytes: int) -> None:
        """Have at least these sizes from now on; larger ones replace smaller ones."""
        self.arena = self._grown(self.arena, arena_bytes)
        self.io = self._grown(self.io, io_bytes)

    def missing_bytes(self, needs: MemoryNeeds) -> int:
        """What a plan would make `reserve` allocate."""
        arena = self.arena.nbytes if self.arena else 0
        io = self.io.nbytes if self.io else 0
        return (needs.arena if needs.arena > arena else 0) + (needs.io if needs.io > io else 0)

    def close(self) -> None:
        """Let go; regions live until their last user is gone."""
        for region in (self.arena, self.io):
            if region is not None:
                region.release()
        self.arena = self.io = None

    def _grown(self, region: Region | None, nbytes: int) -> Region:
        if region is not None and region.nbytes >= nbytes:
            return region
        grown = Region(self.device, nbytes).retain()
        if region is not None:
            region.release()
        return grown
