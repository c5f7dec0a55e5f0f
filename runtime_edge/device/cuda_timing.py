"""Times CUDA kernels outside of any plan, for the builder's tuner."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from planformat.plan import Argument, ArgumentKind, Buffer, CodeKind, CodeObject, Step
from runtime_edge.device.base import ProgramMemory
from runtime_edge.device.cuda import CudaDevice
from runtime_edge.device.cuda_code import CudaModule as LoadedModule
from runtime_edge.device.cuda_driver import (
    CAPTURE_THREAD_LOCAL,
    EVENT_DEFAULT,
    EVENT_RECORD_EXTERNAL,
    FUNCTION_NUM_REGISTERS,
    FUNCTION_SHARED_SIZE_BYTES,
    Driver,
)
from runtime_edge.device.cuda_launch import CudaLaunch, allow_launch
from runtime_edge.device.cuda_probe import attribute, compute_capability
from runtime_edge.device.cuda_program import abandon_capture

__all__ = ["CudaModule", "CudaTimer", "TimedCudaLaunch", "time_cuda_launches"]

RUNS_PER_GRAPH = 20
"""Runs behind each other in one graph: start and events are a small part of their time."""
_L2_BYTES = 38
_NON_BLOCKING = 1


class CudaModule:
    """A candidate's cubin or PTX, loaded."""

    def __init__(self, device: CudaDevice, data: Buffer, name: str = "code object") -> None:
        """Load it.

        Args:
            device: the GPU.
            data: cubin for exactly this GPU, or PTX text.
            name: for messages.

        Raises:
            LoadError: the driver refuses it.
        """
        self.device = device
        context = device.context
        major, minor = compute_capability(context.driver, context.ordinal)
        kind = CodeKind.CUBIN if bytes(data[:4]) == b"\x7fELF" else CodeKind.PTX
        code = CodeObject(kind, f"sm_{major}{minor}", "candidate", data)
        self._module = LoadedModule(context, code, name)

    def function(self, symbol: str) -> int:
        """Handle of a kernel.

        Raises:
            LoadError: there is no such kernel.
        """
        with self.device.context:
            return self._module.function(symbol)

    def resources(self, symbol: str) -> tuple[int, int]:
        """Registers per thread, and static shared memory per block in bytes, of a kernel."""
        function = self.function(symbol)
        driver = self.device.context.driver
        values = []
        with self.device.context:
            for number in (FUNCTION_NUM_REGISTERS, FUNCTION_SHARED_SIZE_BYTES):
                value = ctypes.c_int()
                driver.function_attribute(ctypes.byref(value), number, function)
                values.append(value.value)
        return values[0], values[1]


@dataclass(frozen=True, slots=True)
class TimedCudaLaunch:
    """One launch of a candidate.

    Attributes:
        function: handle of the kernel (`CudaModule.function`).
        arguments: 64-bit values in the kernel's order; the caller keeps the memory alive.
        grid, block, cluster: geometry, x y z.
        shared_memory_bytes: dynamic shared memory per block.
        is_dependent_launch: programmatic dependent launch.
    """

    function: int
    arguments: tuple[int, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int] = (1, 1, 1)
    shared_memory_bytes: int = 0
    is_dependent_launch: bool = False


class CudaTimer:
    """Launches in order, ready to be timed again and again.

    Timers of several candidates may be alive together, so that their runs can be interleaved. One
    timer is for one thread at a time.
    """

    def __init__(
        self,
        module: CudaModule,
        launches: Sequence[TimedCudaLaunch],
        *,
        runs_per_graph: int = RUNS_PER_GRAPH,
        is_flushing: bool = False,
    ) -> None:
        """Capture the launches as one graph.

        Args:
            module: kept while the timer lives; kernels may lie in several modules of the GPU.
            launches: one run is all of them in order.
            runs_per_graph: how often they follow each other in the graph.
            is_flushing: overwrite the L2 cache before each run, outside of the timed part.

        Raises:
            CudaError: a launch is refused (too much shared memory, cluster too large ...).
        """
        context = module.device.context
        driver = context.driver
        self._context, self._keep = context, module
        self._runs = runs_per_graph
        self._is_flushing = is_flushing
        self._owned = context.own(self)
        self._flush = (0, 0)
        if is_flushing:
            size = 2 * max(1 << 20, attribute(driver, context.ordinal, _L2_BYTES))
            with context.pycuda(f"{size:,} bytes to flush the L2 cache with") as pycuda:
                block = pycuda.mem_alloc(size)
                self._flush = (int(block), size)
                self._owned.add_object(block)
                del block
        with context.pycuda("a stream") as pycuda:
            self._stream = self._owned.add_stream(pycuda, _NON_BLOCKING)
        num_spans = runs_per_graph if is_flushing else 1
        with context:
            self._launches = [_launch(context.driver, launch) for launch in launches]
            self._events = [
                self._owned.add("event_destroy", driver.create("event_create", EVENT_DEFAULT))
                for _ in range(2 * num_spans)
            ]
            self._executable = self._capture()

    def run(self) -> None:
        """Run the graph once, untimed."""
        with self._context as context:
            context.driver.graph_launch(self._executable, self._stream)
            context.driver.stream_synchronize(self._stream)

    def measure(self, repeats: int) -> list[float]:
        """Microseconds of one run of all launches.

        Args:
            repeats: graphs to run; nothing is thrown away.

        Returns:
            One mean over `runs_per_graph` runs per repeat; with flushing, every run on its own.
        """
        times = []
        for _ in range(repeats):
            self.run()
            with self._context as context:
                spans = [
                    context.driver.elapsed_us(start, end)
                    for start, end in zip(self._events[::2], self._events[1::2], strict=True)
                ]
            times += spans if self._is_flushing else [spans[0] / self._runs]
        return times

    def close(self) -> None:
        """Destroy graph, stream and events."""
        self._owned.close()

    def _capture(self) -> int:
        driver, stream = self._context.driver, self._stream
        graph = ctypes.c_void_p()
        events = iter(self._events)
        driver.begin_capture(stream, CAPTURE_THREAD_LOCAL)
        try:
            for run in range(self._runs):
                if self._is_flushing:
                    address, size = self._flush
                    driver.memset_async(address, run & 0xFF, size, stream)
                if self._is_flushing or run == 0:
                    driver.event_record_flags(next(events), stream, EVENT_RECORD_EXTERNAL)
                for index, launch in enumerate(self._launches):
                    # Behind an event or a fill there is no kernel to depend on.
                    is_first = index == 0 and (self._is_flushing or run == 0)
                    launch.launch(stream, is_dependent=not is_first)
                if self._is_flushing or run == self._runs - 1:
                    driver.event_record_flags(next(events), stream, EVENT_RECORD_EXTERNAL)
        except BaseException:
            abandon_capture(driver, stream)
            raise
        driver.end_capture(stream, ctypes.byref(graph))
        self._owned.add("graph_destroy", graph.value or 0)
        executable = driver.create("graph_instantiate", graph.value, 0)
        return self._owned.add("graph_exec_destroy", executable)


def time_cuda_launches(
    module: CudaModule,
    launches: Sequence[TimedCudaLaunch],
    *,
    repeats: int = 10,
    is_flushing: bool = False,
) -> list[float]:
    """Microseconds of one run of all launches, `repeats` times; arguments as in `CudaTimer`."""
    timer = CudaTimer(module, launches, is_flushing=is_flushing)
    try:
        timer.run()
        return timer.measure(repeats)
    finally:
        timer.close()


def _launch(driver: Driver, launch: TimedCudaLaunch) -> CudaLaunch:
    step = Step(
        "candidate",
        0,
        launch.grid,
        tuple(Argument(ArgumentKind.IMMEDIATE, value) for value in launch.arguments),
        block=launch.block,
        cluster=launch.cluster,
        shared_memory_bytes=launch.shared_memory_bytes,
        is_dependent_launch=launch.is_dependent_launch,
    )
    allow_launch(driver, launch.function, step)
    return CudaLaunch(driver, launch.function, step, ProgramMemory(0, 0))
