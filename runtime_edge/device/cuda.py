"""The CUDA device: one GPU, through pycuda and, for what pycuda lacks, `cuda_driver`."""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Buffer, CodeObject, Kernel
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.cuda_code import CudaCode
from runtime_edge.device.cuda_codes import OUT_OF_MEMORY
from runtime_edge.device.cuda_context import GpuContext, destroy_object, keep_for_ever, open_context
from runtime_edge.device.cuda_driver import CudaError
from runtime_edge.device.cuda_memory import hold
from runtime_edge.device.cuda_probe import is_integrated, probe_gpu
from runtime_edge.device.cuda_staging import CudaStaging
from runtime_edge.device.cuda_stream import CudaStream, stream_handle
from runtime_edge.errors import DeviceError
from runtime_edge.memory import caller_region, round_up

_log = logging.getLogger(__name__)

ALLOCATION_ALIGNMENT_BYTES = 256
"""What the driver aligns every allocation to."""
STAGING_BYTES = 4 << 20
"""Page-locked block through which weights travel; there are two, so that one fills meanwhile."""
_NON_BLOCKING = 1


class CudaDevice:
    """One GPU. Usable from any thread. See `Device` in base.py.

    Attributes:
        ordinal: its number, as the driver counts (CUDA_VISIBLE_DEVICES renumbers).
        context: its primary context.
    """

    kind = "cuda"
    needs_staging = True

    def __init__(self, ordinal: int = 0) -> None:
        """Retain the GPU's primary context for the process.

        Raises:
            LoadError: no driver or no pycuda; CudaError: no such GPU.
        """
        self.ordinal = ordinal
        self.context: GpuContext = open_context(ordinal)
        self._is_integrated = is_integrated(self.context.driver, ordinal)
        self._blocks: dict[int, list[Any]] = {}
        self._slots: dict[int, _Slot] = {}
        self._lock = threading.Lock()
        self._streams: weakref.WeakValueDictionary[int, CudaStream] = weakref.WeakValueDictionary()
        self._owned = self.context.own(self)
        with self.context.pycuda("a stream") as pycuda:
            self._copies = self._owned.add_stream(pycuda, _NON_BLOCKING)

    def probe(self) -> DeviceFingerprint:
        """The fingerprint of this GPU and its board."""
        return probe_gpu(self.ordinal)

    def load_code(
        self, code_objects: Sequence[CodeObject], kernels: Sequence[Kernel], *, source: str
    ) -> CudaCode:
        """Load cubins or PTX."""
        return CudaCode(self.context, code_objects, kernels, source=source)

    def map_weights(
        self,
        weights: Buffer,
        memory: Any = None,
        allocator: Any = None,
        *,
        context_bytes: int = 0,
    ) -> tuple[int, Any]:
        """Copy the weights to the device, once, through page-locked memory.

        The driver gives whole pages of 2 MiB, so the first context's memory comes from the same
        allocation: two roundings would cost more than many an arena.
        """
        nbytes = len(weights)
        if nbytes == 0:
            return 0, None
        if memory is not None:
            address, holder = caller_region(memory, nbytes, hold=self.hold)
        else:
            source = allocator or self
            offset = round_up(nbytes, ALLOCATION_ALIGNMENT_BYTES)
            needed = offset + context_bytes if context_bytes else nbytes
            address = source.allocate(needed, ALLOCATION_ALIGNMENT_BYTES)
            holder = _Allocation(source, address)
            if context_bytes and allocator is None:
                with self._lock:
                    self._slots[address + offset] = _Slot(context_bytes, address)
        self.write(address, weights)
        return address, holder

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Device memory through pycuda.

        Raises:
            CudaError: there is not enough; tells what is free.
        """
        if alignment > ALLOCATION_ALIGNMENT_BYTES:
            raise DeviceError(
                f"alignment {alignment} is more than the {ALLOCATION_ALIGNMENT_BYTES} bytes to "
                "which the driver aligns device memory"
            )
        with self._lock:
            for address, slot in self._slots.items():
                if not slot.is_used and slot.nbytes // 2 < nbytes <= slot.nbytes:
                    slot.is_used = True
                    return address
        try:
            with self.context.pycuda(f"{nbytes:,} bytes of device memory") as pycuda:
                block = pycuda.mem_alloc(max(1, nbytes))
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            free, total = self.context.free_memory()
            raise CudaError(
                f"{error} (GPU {self.ordinal} has {free:,} of {total:,} bytes free)", error.code
            ) from error
        keep_for_ever(block)  # until it is freed: not at interpreter exit
        address = int(block)
        with self._lock:
            self._blocks[address] = [block]
        return address

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        with self._lock:
            if address in self._slots:
                self._slots[address].is_used = False
                return
            block = self._blocks.pop(address, None)
            self._slots = {a: s for a, s in self._slots.items() if s.block != address}
        if block is None:
            raise DeviceError(f"address {address:#x} was not allocated here")
        if self.context.is_dead:
            return  # it cannot be freed, and pycuda shall not try
        with self.context.pycuda("freeing device memory"):
            destroy_object(block)

    def write(self, address: int, data: Buffer) -> None:
        """Copy host memory to device memory; returns when it is there."""
        if len(data) == 0:
            return
        held = HeldBuffer(data, is_writable=False)
        if held.nbytes <= STAGING_BYTES:
            with self.context as context:
                context.driver.copy_to_device(address, held.address, held.nbytes, self._copies)
                context.driver.stream_synchronize(self._copies)
        else:
            self._write_staged(address, held)

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy device memory to host memory."""
        if nbytes == 0:
            return b""
        target = ctypes.create_string_buffer(nbytes)
        with self.context as context:
            context.driver.copy_to_host(target, address, nbytes, self._copies)
            context.driver.stream_synchronize(self._copies)
        return target.raw

    def usable_workers(self) -> int:
        """One: a GPU has no workers of the plan's kind."""
        return 1

    def hold(self, value: Any, *, is_writable: bool) -> Any:
        """Device memory of a caller's object; see `cuda_memory.hold`."""
        return hold(self.context, value, is_writable=is_writable)

    def adopt_stream(self, stream: Any) -> CudaStream:
        """The caller's stream: pycuda, `__cuda_stream__` or integer.

        Raises:
            BindingError: none of these.
        """
        handle = stream_handle(stream)
        with self._lock:
            found = self._streams.get(handle)
            if found is None:
                found = self._streams[handle] = CudaStream(self.context, handle, stream)
            return found

    def create_staging(self, sizes: Sequence[int], allocator: Any = None) -> CudaStaging:
        """Memory through which bindings in host memory go."""
        return CudaStaging(self.context, sizes, allocator or self, is_shared=self._is_integrated)

    def free_memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and that there are, by the driver's counter."""
        return self.context.free_memory()

    def _write_staged(self, address: int, held: HeldBuffer) -> None:
        driver = self.context.driver
        stream = self._copies
        owned = self.context.own(self)
        try:
            blocks = []
            with self.context.pycuda("page-locked memory") as pycuda:
                for _ in range(2):
                    array = pycuda.pagelocked_empty(STAGING_BYTES, "uint8")
                    owned.add_object(array.base)
                    event = driver.create("event_create", 2)
                    owned.add("event_destroy", event)
                    blocks.append((array.__array_interface__["data"][0], event))
                    del array
            with self.context:
                for number, offset in enumerate(range(0, held.nbytes, STAGING_BYTES)):
                    block, event = blocks[number % 2]
                    size = min(STAGING_BYTES, held.nbytes - offset)
                    driver.event_synchronize(event)  # done at once when it was never recorded
                    ctypes.memmove(block, held.address + offset, size)
                    driver.copy_to_device(address + offset, block, size, stream)
                    driver.event_record(event, stream)
                driver.stream_synchronize(stream)
        finally:
            owned.close()


@dataclass(slots=True)
class _Slot:
    """Memory for a context behind the weights in the block at address `block`."""

    nbytes: int
    block: int
    is_used: bool = False


class _Allocation:
    """Memory that goes back to its allocator with this object."""

    def __init__(self, allocator: Any, address: int) -> None:
        finalizer = weakref.finalize(self, allocator.free, address)
        finalizer.atexit = False
