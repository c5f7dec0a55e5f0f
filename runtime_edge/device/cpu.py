"""The CPU device: generated C in shared objects, run by the support code inside them."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from collections.abc import Sequence
from math import ceil
from typing import Any

from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    ArgumentKind,
    Buffer,
    CodeKind,
    CodeObject,
    Kernel,
    Step,
)
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.base import HostStaging, ProgramMemory
from runtime_edge.device.cpu_cores import usable_cores
from runtime_edge.device.cpu_native import STEP_CONCURRENT, CpuAbi, CpuModule, StepDesc
from runtime_edge.device.cpu_program import CpuProgram
from runtime_edge.device.cpu_stream import CpuEvent, CpuStream
from runtime_edge.errors import BindingError, DeviceError, LoadError
from runtime_edge.memory import ALIGNMENT_BYTES, caller_region

_log = logging.getLogger(__name__)

SHARE_US = 1.0
"""Work that a worker should take at once: several times what moving two cache lines costs."""
ALONE_US = 3.0
"""A step with less work than this is not shared: the others would fetch its data for nothing."""
HUGE_PAGE_BYTES = 2 << 20


class CpuCode:
    """Shared objects of one variant, loaded. See `Code` in base.py."""

    def __init__(
        self, code_objects: Sequence[CodeObject], kernels: Sequence[Kernel], *, source: str
    ) -> None:
        """Load the shared objects and look up every kernel.

        Raises:
            LoadError: see `Device.load_code`.
        """
        machine = os.uname().machine
        self._modules: list[CpuModule] = []
        for index, code in enumerate(code_objects):
            where = f"plan {source}: code object {index}"
            if code.kind is not CodeKind.SHARED_OBJECT or code.architecture != machine:
                raise LoadError(
                    f"{where}: is a {code.kind.name} for {code.architecture}, this device runs a "
                    f"SHARED_OBJECT for {machine}; build the plan for this machine"
                )
            self._modules.append(CpuModule(code.data, where))
        supported = [m for m in self._modules if m.has("edgeplan_cpu_abi_version")]
        if not self._modules:
            raise LoadError(f"plan {source}: holds no code objects; build it again")
        self._abi = CpuAbi((supported or self._modules)[0])
        self._functions = tuple(self._modules[k.code_object].address(k.symbol) for k in kernels)

    def create_program(
        self,
        steps: Sequence[Step],
        memory: ProgramMemory,
        *,
        num_bindings: int,
        num_workers: int,
        tuned_workers: int,
    ) -> CpuProgram:
        """Resolve the arguments of all steps."""
        descriptions: list[StepDesc] = []
        args: list[int] = []
        patches: list[tuple[int, int, int]] = []
        for step in steps:
            description = StepDesc(
                self._functions[step.kernel],
                len(args),
                step.grid[0],
                smallest_share(step, tuned_workers),
                STEP_CONCURRENT if step.is_concurrent else 0,
            )
            descriptions.append(description)
            for argument in step.arguments:
                if argument.kind is ArgumentKind.BINDING:
                    patches.append((len(args), argument.value, argument.offset_bytes))
                    args.append(0)
                elif argument.kind is ArgumentKind.ARENA:
                    args.append(memory.arena + argument.value + argument.offset_bytes)
                elif argument.kind is ArgumentKind.WEIGHTS:
                    args.append(memory.weights + argument.value + argument.offset_bytes)
                else:
                    args.append(argument.value & 0xFFFF_FFFF_FFFF_FFFF)
        return CpuProgram(
            self._abi,
            descriptions,
            args,
            patches,
            num_bindings=num_bindings,
            num_workers=num_workers,
            scratch=memory.scratch,
            scratch_stride_bytes=memory.scratch_stride_bytes,
            keep=self._modules,
        )

    def create_stream(self) -> CpuStream:
        """A stream with its own thread."""
        return CpuStream(self._abi)

    def create_event(self) -> CpuEvent:
        """An event, not recorded yet."""
        return CpuEvent(self._abi)

    def close(self) -> None:
        """Let go of the shared objects: each is unloaded when nothing made from it is left."""
        self._modules = []
        del self._abi


def smallest_share(step: Step, tuned_workers: int) -> int:
    """Units that a worker should take at once, from the step's time at build; 1 if unknown."""
    num_units = step.grid[0]
    time_us = step.measured_us if step.measured_us is not None else step.predicted_us
    if time_us is None or time_us <= 0 or num_units <= 1:
        return 1
    work_us = time_us * tuned_workers
    if work_us < ALONE_US:
        return num_units
    return max(1, min(num_units, ceil(SHARE_US * num_units / work_us)))


class CpuDevice:
    """The machine that the process runs on. See `Device` in base.py."""

    kind = "cpu"
    needs_staging = False

    def __init__(self) -> None:
        """No memory is taken yet."""
        self._blocks: dict[int, tuple[mmap.mmap, HeldBuffer]] = {}

    def probe(self) -> DeviceFingerprint:
        """The fingerprint of this machine."""
        from runtime_edge.probe import probe_device

        return probe_device()

    def load_code(
        self, code_objects: Sequence[CodeObject], kernels: Sequence[Kernel], *, source: str
    ) -> CpuCode:
        """Load shared objects from memory."""
        return CpuCode(code_objects, kernels, source=source)

    def map_weights(
        self,
        weights: Buffer,
        memory: Any = None,
        allocator: Any = None,
        *,
        context_bytes: int = 0,
    ) -> tuple[int, Any]:
        """Weights are used where they are; only misaligned ones are copied (a plan in `bytes`)."""
        del allocator, context_bytes
        if len(weights) == 0:
            return 0, None
        if memory is not None:
            address, holder = caller_region(memory, len(weights))
            self.write(address, weights)
            return address, holder
        held = HeldBuffer(weights, is_writable=False)
        if held.address % ALIGNMENT_BYTES == 0:
            return held.address, held
        block = mmap.mmap(-1, held.nbytes)
        block.write(weights)
        copied = HeldBuffer(block, is_writable=True)
        return copied.address, copied

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Anonymous pages, aligned to 4096 bytes, huge pages where the system has them."""
        if alignment > mmap.PAGESIZE:
            raise DeviceError(f"alignment {alignment} is more than a page of {mmap.PAGESIZE} bytes")
        try:
            block = mmap.mmap(-1, max(1, nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise DeviceError(f"{nbytes:,} bytes of memory were refused: {error}") from error
        if nbytes >= HUGE_PAGE_BYTES:
            try:
                block.madvise(mmap.MADV_HUGEPAGE)
            except (OSError, AttributeError) as error:
                _log.debug("huge pages are not available: %s", error)
        held = HeldBuffer(block, is_writable=True)
        self._blocks[held.address] = (block, held)
        return held.address

    def free(self, address: int) -> None:
        """Unmap what `allocate` returned."""
        try:
            block, held = self._blocks.pop(address)
        except KeyError:
            raise DeviceError(f"address {address:#x} was not allocated here") from None
        del held
        block.close()

    def write(self, address: int, data: Buffer) -> None:
        """Copy bytes to an address."""
        if len(data):
            held = HeldBuffer(data, is_writable=False)
            ctypes.memmove(address, held.address, held.nbytes)

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy bytes from an address."""
        return ctypes.string_at(address, nbytes) if nbytes else b""

    def usable_workers(self) -> int:
        """Cores in the affinity mask."""
        return len(usable_cores())

    def hold(self, value: Any, *, is_writable: bool) -> HeldBuffer:
        """Host memory with the buffer protocol."""
        return HeldBuffer(value, is_writable=is_writable)

    def adopt_stream(self, stream: Any) -> CpuStream:
        """There are no streams but those made here."""
        raise BindingError(
            f"stream is {stream!r}; make one with Engine.create_stream() (there is no default "
            "stream)"
        )

    def create_staging(self, sizes: Sequence[int], allocator: Any = None) -> HostStaging:
        """Nobody asks: host memory is used in place."""
        raise NotImplementedError
