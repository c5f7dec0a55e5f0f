"""The CPU device: generated C in shared objects, run by the support code inside them."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
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
from runtime_edge.device.cpu_cores import cores_for_pool, usable_cores
from runtime_edge.device.cpu_native import (
    CALLBACK,
    STEP_CONCURRENT,
    CpuAbi,
    CpuModule,
    Patch,
    StepDesc,
    check_fork,
    num_forks,
    own,
)
from runtime_edge.errors import BindingError, ContextBusyError, DeviceError, LoadError
from runtime_edge.memory import ALIGNMENT_BYTES, caller_region

_log = logging.getLogger(__name__)

SHARE_US = 1.0
"""Work that a worker should take at once: several times what moving two cache lines costs."""
ALONE_US = 3.0
"""A step with less work than this is not shared: the others would fetch its data for nothing."""
HUGE_PAGE_BYTES = 2 << 20


class CpuProgram:
    """Steps of one profile as one native call. See `Program` in base.py."""

    def __init__(
        self,
        abi: CpuAbi,
        steps: Sequence[StepDesc],
        args: Sequence[int],
        patches: Sequence[tuple[int, int, int]],
        *,
        num_bindings: int,
        num_workers: int,
        scratch: int = 0,
        scratch_stride_bytes: int = 0,
        keep: Any = None,
    ) -> None:
        """Copy the tables into native memory and start num_workers - 1 threads.

        Args:
            abi: support code to run with.
            steps: one description per step; first_arg indexes `args`.
            args: argument values, 64-bit.
            patches: (argument index, binding index, offset in bytes) of arguments that follow
                bindings.
            num_bindings: length of `addresses`.
            num_workers: the calling thread included.
            scratch: address of num_workers blocks of scratch_stride_bytes.
            scratch_stride_bytes: multiple of 64.
            keep: lives as long as the program.
        """
        self._abi = abi
        self._forks = num_forks()
        self._num_steps = len(steps)
        cores = cores_for_pool(num_workers) if num_workers > 1 else ()
        pool = _Pool(abi, num_workers, cores)
        ordered = sorted(patches, key=lambda patch: patch[1])
        handle = abi.program_create(
            pool.handle,
            (StepDesc * max(1, len(steps)))(*steps),
            len(steps),
            (ctypes.c_void_p * max(1, len(args)))(*args),
            len(args),
            (Patch * max(1, len(ordered)))(*(Patch(*patch) for patch in ordered)),
            len(ordered),
            num_bindings,
            scratch,
            scratch_stride_bytes,
        )
        # `keep` of the finalizer holds the pool, so it goes after the program.
        self._close = own(self, handle, "program", abi.program_destroy, pool, keep)
        self._pool = pool
        self.handle: int = handle
        self.addresses = (ctypes.c_void_p * max(1, num_bindings))()
        self.addresses_address = ctypes.addressof(self.addresses)
        self._step_ns = (ctypes.c_int64 * max(1, self._num_steps))()

    def run(self) -> None:
        """One inference on this thread and the pool."""
        check_fork(self._forks)
        self._abi.program_run(self.handle, self.addresses_address, None)

    def run_timed(self) -> list[float]:
        """One inference with a barrier after each step; microseconds of each."""
        check_fork(self._forks)
        self._abi.program_run(self.handle, self.addresses_address, self._step_ns)
        return [self._step_ns[i] / 1000 for i in range(self._num_steps)]

    def measure(self, repeats: int, flush: HeldBuffer | None = None) -> list[float]:
        """Microseconds of `repeats` runs; a flush buffer is written before each, not timed."""
        times = (ctypes.c_int64 * max(1, repeats))()
        flush_range = (flush.address, flush.nbytes) if flush else (None, 0)
        self._abi.program_measure(self.handle, self.addresses_address, repeats, *flush_range, times)
        return [times[i] / 1000 for i in range(repeats)]

    def worker_cores(self) -> list[int]:
        """Core to which each worker but the first is pinned, -1 when it is not."""
        num = 1
        cores = []
        while (core := self._abi.pool_worker_cpu(self._pool.handle, num)) >= 0:
            cores.append(core)
            num += 1
        return cores

    def close(self) -> None:
        """Stop the threads and free the tables; nothing may be running."""
        self._close()


class _Pool:
    """Worker threads."""

    def __init__(self, abi: CpuAbi, num_workers: int, cores: Sequence[int]) -> None:
        array = (ctypes.c_int32 * max(1, len(cores)))(*cores)
        self.handle: int = abi.pool_create(num_workers, array, len(cores))
        own(self, self.handle, f"pool of {num_workers} workers", abi.pool_destroy, abi)


class CpuEvent:
    """A point in the work of CPU streams. See `Event` in base.py."""

    def __init__(self, abi: CpuAbi) -> None:
        """An event that was not recorded yet."""
        self._abi = abi
        self.handle: int = abi.event_create()
        own(self, self.handle, "event", abi.event_destroy, abi)

    def query(self) -> bool:
        """Whether everything recorded so far has happened."""
        return bool(self._abi.event_query(self.handle))

    def synchronize(self) -> None:
        """Wait until everything recorded so far has happened."""
        self._abi.event_synchronize(self.handle)

    def time_us(self) -> float:
        """When it last happened: microseconds of the monotonic clock, 0 before the first time."""
        return float(self._abi.event_time_ns(self.handle)) / 1000


class CpuStream:
    """Work in order on a thread of its own. Any thread may enqueue. See `Stream` in base.py."""

    def __init__(self, abi: CpuAbi) -> None:
        """Start the thread."""
        self._abi = abi
        self._forks = num_forks()
        self._handle: int = abi.stream_create()
        self._pending: deque[tuple[int, Any]] = deque()
        self._lock = threading.Lock()
        self._last_ticket = 0
        # The finalizer finishes the work, so what it needs lives until then.
        self._close = own(self, self._handle, "stream", abi.stream_destroy, abi, self._pending)

    def enqueue(self, program: CpuProgram, keep: Any) -> int:
        """Enqueue one run; waits only while 256 commands are waiting already."""
        return self._push(
            self._abi.stream_try_run,
            (program.handle, program.addresses_address),
            (program, keep),
        )

    def record(self, event: CpuEvent) -> None:
        """Let the event happen when all work enqueued so far is done."""
        self._push(self._abi.stream_try_record, (event.handle,), event)

    def wait(self, event: CpuEvent) -> None:
        """Let later work wait for what the event has recorded so far (nothing: no wait)."""
        self._push(self._abi.stream_try_wait, (event.handle,), event)

    def call(self, function: Callable[[], None]) -> None:
        """Call a short function in order; it must not wait for this stream.

        It runs on the stream's thread or on one that synchronises; what it raises is logged.
        """

        def guarded(_: int | None) -> None:
            try:
                function()
            except Exception:
                _log.exception("a function called by a stream failed")

        callback = CALLBACK(guarded)
        self._push(self._abi.stream_try_call, (callback, None), callback)

    def is_done(self, ticket: int) -> bool:
        """Whether the work with this ticket has finished."""
        return not self._close.alive or self._abi.stream_completed(self._handle) >= ticket

    def wait_for(self, ticket: int) -> None:
        """Wait until the work with this ticket has finished."""
        check_fork(self._forks)
        if self._close.alive:
            self._abi.stream_synchronize(self._handle, ticket)

    def synchronize(self) -> None:
        """Wait until all work enqueued so far is done; an idle stream's work is done right here."""
        self.wait_for(self._last_ticket)
        self._drop_finished()

    def close(self) -> None:
        """Finish the work and end the thread."""
        self._close()
        self._pending.clear()

    def __enter__(self) -> CpuStream:
        """The stream itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _push(self, attempt: Callable[..., int], arguments: tuple[Any, ...], keep: Any) -> int:
        check_fork(self._forks)
        if not self._close.alive:
            raise ContextBusyError("the stream is closed; create another with create_stream()")
        if len(self._pending) >= _PENDING_BEFORE_CLEANING:
            self._drop_finished()
        while True:
            # The lock keeps tickets ascending in `pending`; nothing inside it blocks.
            with self._lock:
                ticket = attempt(self._handle, *arguments)
                if ticket > 0:
                    self._pending.append((ticket, keep))
                    self._last_ticket = ticket
                    return ticket
            if ticket < 0:
                raise DeviceError("more than 4096 bindings do not fit into a stream's queue")
            self._abi.stream_wait_space(self._handle)

    def _drop_finished(self) -> None:
        if not self._close.alive:
            return
        completed = self._abi.stream_completed(self._handle)
        dropped = []  # released outside the lock: destructors may run arbitrary code
        with self._lock:
            while self._pending and self._pending[0][0] <= completed:
                dropped.append(self._pending.popleft())


_PENDING_BEFORE_CLEANING = 16


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
