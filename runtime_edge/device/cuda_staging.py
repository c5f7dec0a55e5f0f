"""Device memory beside host arrays, for callers that keep their data in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.cuda_context import GpuContext
from runtime_edge.device.cuda_program import CudaProgram

_DEVICE_MAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_ALIGNMENT_BYTES = 256


class CudaStaging:
    """One block of memory for all bindings of a context. See `HostStaging` in base.py.

    On a discrete GPU it is device memory, and runs stand between copies. On an integrated one it is
    page-locked host memory that the GPU reads and writes in place (zero-copy).
    """

    def __init__(
        self, context: GpuContext, sizes: Sequence[int], allocator: Any, *, is_shared: bool
    ) -> None:
        """Allocate.

        Args:
            context: of the GPU.
            sizes: bytes of each binding.
            allocator: gives device memory; not asked when memory is shared.
            is_shared: take page-locked memory that is mapped into the device.
        """
        self._context = context
        self._allocator = allocator
        self._offsets = []
        total = 0
        for size in sizes:
            self._offsets.append(total)
            total += -(-max(1, size) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._base = 0
        self._host = 0
        self._owned = context.own(self)
        if is_shared:
            with context.pycuda(f"{total:,} bytes of page-locked memory") as pycuda:
                block = pycuda.pagelocked_empty(total, "uint8", mem_flags=_DEVICE_MAP)
                self._owned.add_object(block.base)
                self._host = block.__array_interface__["data"][0]
                self._base = int(block.base.get_device_pointer())
        else:
            self._base = allocator.allocate(total, _ALIGNMENT_BYTES)

    def execute(
        self, program: CudaProgram, inputs: Sequence[HeldBuffer | None], outputs: Sequence[Any]
    ) -> None:
        """One inference on host buffers; returns when the outputs are there.

        Args:
            program: made for the bindings whose sizes were given.
            inputs: one per binding; None for outputs.
            outputs: one per binding; None for inputs.
        """
        before, after = [], []
        for index, (source, target) in enumerate(zip(inputs, outputs, strict=True)):
            program.addresses[index] = self._base + self._offsets[index]
            if source is not None and source.nbytes:
                before.append(self._copy(index, source, is_input=True))
            if target is not None and target.nbytes:
                after.append(self._copy(index, target, is_input=False))
        if self._host:
            for copy in before:
                copy(0)
            program.run()
            for copy in after:
                copy(0)
        else:
            program.run_between(before, after)

    def close(self) -> None:
        """Give the memory back; nothing may be running."""
        base, self._base = self._base, 0
        if base and not self._host:
            self._allocator.free(base)
        self._owned.close()

    def _copy(self, index: int, held: HeldBuffer, *, is_input: bool) -> Any:
        driver, offset = self._context.driver, self._offsets[index]
        if self._host:
            there, here = self._host + offset, held.address
            pair = (there, here) if is_input else (here, there)
            return lambda _stream: ctypes.memmove(*pair, held.nbytes)
        address = self._base + offset
        if is_input:
            return lambda stream: driver.copy_to_device(address, held.address, held.nbytes, stream)
        return lambda stream: driver.copy_to_host(held.address, address, held.nbytes, stream)
