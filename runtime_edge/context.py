"""ExecutionContext: the memory, threads and tables of one inference at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planformat.plan import Profile
from runtime_edge.bindings import BindingTable
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.base import HostStaging, Program, ProgramMemory, Stream
from runtime_edge.errors import ContextBusyError, StrictModeError
from runtime_edge.memory import ALIGNMENT_BYTES, Allocator, caller_region

if TYPE_CHECKING:
    from runtime_edge.arrays import ArrayBinder
    from runtime_edge.engine import Engine


@dataclass(frozen=True, slots=True)
class StepTime:
    """Time of one step.

    Attributes:
        name: the layers that it computes; tactic: canonical text of its tactic.
        tactic: chosen at build.
        time_us: median here, with a barrier after the step.
        built_us: median when the plan was built, None if it was not measured.
    """

    name: str
    tactic: str
    time_us: float
    built_us: float | None


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One inference with a barrier after every step.

    Attributes:
        start_ns, end_ns: of `time.perf_counter_ns`; on a GPU its launch and its end for the host.
        steps_us: time of each step of the profile, in order.
    """

    start_ns: int
    end_ns: int
    steps_us: tuple[float, ...]


class ExecutionContext:
    """Runs one profile of an engine. Made by `Engine.create_context`; one user at a time.

    Attributes:
        engine: the engine, shared with other contexts.
        profile: shapes and steps that this context runs.
        num_workers: threads that share each step, the calling or stream's thread included.
    """

    def __init__(self, engine: Engine, profile: Profile, *, arena: Any, num_workers: int) -> None:
        """See `Engine.create_context`."""
        self.engine = engine
        self.profile = profile
        self.num_workers = num_workers
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._given_stream: Any = None
        self._staging: HostStaging | None = None
        self._binder: ArrayBinder | None = None
        self._ticket = 0
        self._is_closed = False
        self._owned: tuple[Any, int] | None = None
        address, self._memory_holder = self._take_memory(arena)
        try:
            self._program = self._create_program(address)
        except BaseException:
            self._give_memory_back()
            raise
        self._table = BindingTable(
            engine.plan.bindings, profile.shapes, self._program.addresses, engine.device.hold
        )
        engine._register(self)

    def enqueue(self, bindings: Mapping[str, Any], stream: Any) -> None:
        """Enqueue one inference and return at once.

        Inputs are read, and outputs written, when the stream gets there: leave both alone until
        the stream is synchronised. The runtime keeps buffers (not bare addresses) alive until then.
        Runs of one context follow each other, so they belong on one stream; switching to another
        stream needs the earlier work to be done.

        Args:
            bindings: every input and output by name: address, pair (address, nbytes), or
                C-contiguous buffer of the binding's type and shape. On a GPU: in device memory
                (pycuda allocations, `__cuda_array_interface__`) or page-locked host memory.
            stream: from `Engine.create_stream` of any loaded engine on the same device. On a GPU
                also the caller's: pycuda stream, `__cuda_stream__`, or handle as an integer.

        Raises:
            BindingError: a binding is missing, unknown or does not fit.
            ContextBusyError: another thread is using the context, or another stream still is.
        """
        if not self._lock.acquire(blocking=False):
            self._raise_busy()
        try:
            used = self._stream
            if used is None or stream is not self._given_stream:
                used = self._adopt(stream)
            # Earlier runs carry their own addresses: rebinding does not disturb them.
            self._table.update(bindings)
            self._ticket = used.enqueue(self._program, self._table.kept)
        finally:
            self._lock.release()

    def run(self, bindings: Mapping[str, Any]) -> None:
        """One inference on the calling thread; returns when it is done.

        Args:
            bindings: as in `enqueue`.

        Raises:
            BindingError, ContextBusyError: as in `enqueue`.
        """
        if not self._lock.acquire(blocking=False):
            self._raise_busy()
        try:
            self._require_idle("on a stream")
            self._table.update(bindings)
            self._program.run()
        finally:
            self._lock.release()

    def execute(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """One inference on the calling thread, with NumPy arrays.

        Args:
            inputs: every input by name; element type and shape must be those of the profile, a
                non-contiguous array is copied.
            outputs: arrays to write to, for some or all outputs; the others are made new.

        Returns:
            All outputs by name.

        Raises:
            BindingError, ContextBusyError: as in `enqueue`.
            StrictModeError: strict mode, and an array would have to be made.
        """
        if not self._lock.acquire(blocking=False):
            self._raise_busy()
        try:
            self._require_idle("on a stream")
            if self._binder is None:
                from runtime_edge.arrays import ArrayBinder

                self._binder = ArrayBinder(self.engine.plan.bindings, self.profile.shapes)
            arrays, values = self._binder.bind(
                inputs, outputs or {}, is_strict=self.engine.config.strict
            )
            if not self._execute_staged(arrays):
                self._table.update(values)
                self._program.run()
            self._table.clear()
        finally:
            self._lock.release()
        return self._binder.outputs(arrays)

    def measure_steps(
        self, bindings: Mapping[str, Any], *, repeats: int = 20
    ) -> tuple[StepTime, ...]:
        """Median time of every step over some inferences.

        Args:
            bindings: as in `timed_runs`.
            repeats: inferences that the median is taken of.
        """
        rows = [run.steps_us for run in self.timed_runs(bindings, repeats=repeats)]
        return tuple(
            StepTime(step.name, step.tactic, sorted(column)[repeats // 2], step.measured_us)
            for step, column in zip(self.profile.steps, zip(*rows, strict=True), strict=True)
        )

    def timed_runs(self, bindings: Mapping[str, Any], *, repeats: int = 20) -> list[TimedRun]:
        """Run `repeats` inferences on the calling thread and time every step.

        Args:
            bindings: as in `enqueue`.
            repeats: at least 1; one more run before them is thrown away.

        Raises:
            BindingError, ContextBusyError: as in `enqueue`.
        """
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}, it must be at least 1")
        if not self._lock.acquire(blocking=False):
            self._raise_busy()
        try:
            self._require_idle("on a stream")
            self._table.update(bindings)
            self._program.run_timed()
            runs = []
            for _ in range(repeats):
                start = time.perf_counter_ns()
                steps_us = tuple(self._program.run_timed())
                runs.append(TimedRun(start, time.perf_counter_ns(), steps_us))
        finally:
            self._lock.release()
        return runs

    def close(self) -> None:
        """Wait for enqueued work, then give back threads and memory. Closing twice is fine."""
        if not self._lock.acquire(blocking=False):
            self._raise_busy()
        try:
            if self._is_closed:
                return
            try:
                self._wait()
            finally:
                self._is_closed = True
                self._stream = self._given_stream = None
                self._table.clear()
                self._program.close()
                if self._staging is not None:
                    self._staging.close()
                self._give_memory_back()
                self.engine._unregister(self)
        finally:
            self._lock.release()

    def __enter__(self) -> ExecutionContext:
        """The context itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Wait for enqueued work: it uses the arena that goes away with the context."""
        if not getattr(self, "_is_closed", True):
            self._wait()
            if self._staging is not None:
                self._staging.close()
            self._give_memory_back()

    def _take_memory(self, arena: Any) -> tuple[int, Any]:
        engine = self.engine
        needed = engine.context_bytes(self.profile.name, num_workers=self.num_workers)
        if needed == 0:
            return 0, None
        allocator: Any = engine.config.allocator or engine.device
        if arena is None and engine.config.strict and engine.is_loaded:
            raise StrictModeError(
                f"a context of profile '{self.profile.name}' needs {needed:,} bytes and strict "
                "mode forbids the runtime to allocate them: pass arena=address, buffer or allocator"
            )
        if isinstance(arena, Allocator):
            allocator = arena
        elif arena is not None:
            return caller_region(arena, needed, hold=engine.device.hold)
        address = allocator.allocate(needed, ALIGNMENT_BYTES)
        self._owned = (allocator, address)
        return caller_region((address, needed), needed)

    def _create_program(self, address: int) -> Program:
        engine, profile = self.engine, self.profile
        stride = engine.scratch_bytes(profile.name, num_workers=1)
        scratch = address + engine.arena_bytes(profile.name) if stride else 0
        return engine._code.create_program(
            profile.steps,
            ProgramMemory(address, engine._weights_address, scratch, stride),
            num_bindings=len(profile.shapes),
            num_workers=self.num_workers,
            tuned_workers=profile.num_workers,
        )

    def _adopt(self, stream: Any) -> Stream:
        device = self.engine.device
        used: Stream = stream if hasattr(stream, "enqueue") else device.adopt_stream(stream)
        if used is not self._stream:
            self._require_idle("on another stream")
            self._stream = used
        self._given_stream = stream
        return used

    def _execute_staged(self, arrays: Mapping[str, Any]) -> bool:
        """Run on host arrays through memory of the device; false where they are used in place."""
        engine = self.engine
        bindings = engine.plan.bindings
        if self._staging is None:
            if not engine.device.needs_staging:
                return False
            if engine.config.strict:
                raise StrictModeError(
                    "execute() on host arrays needs device memory for the bindings, which strict "
                    "mode forbids the runtime to allocate: use enqueue() with device memory"
                )
            sizes = [engine.binding_bytes(b.name, self.profile.name) for b in bindings]
            self._staging = engine.device.create_staging(sizes, engine.config.allocator)
        held = [HeldBuffer(arrays[b.name], is_writable=not b.is_input) for b in bindings]
        pairs = list(zip(held, bindings, strict=True))
        self._staging.execute(
            self._program,
            [buffer if binding.is_input else None for buffer, binding in pairs],
            [None if binding.is_input else buffer for buffer, binding in pairs],
        )
        return True

    def _give_memory_back(self) -> None:
        owned, self._owned = self._owned, None
        self._memory_holder = None
        if owned is not None:
            allocator, address = owned
            allocator.free(address)

    def _wait(self) -> None:
        if self._stream is not None:
            self._stream.wait_for(self._ticket)

    def _require_idle(self, where: str) -> None:
        if self._is_closed:
            raise ContextBusyError("the context is closed; create another one")
        if self._stream is not None and not self._stream.is_done(self._ticket):
            raise ContextBusyError(
                f"the context still has work {where}; synchronise that stream first, or use one "
                "context per stream"
            )

    def _raise_busy(self) -> None:
        raise ContextBusyError(
            "the context is in use by another thread; one user at a time: create a context per "
            "thread with Engine.create_context (they share the weights)"
        )
