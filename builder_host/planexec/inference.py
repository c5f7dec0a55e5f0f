"""Timing a loaded plan as trtexec does: a thread, a stream and a context each, one in flight.

Compute times are taken by events of the device; transfers, which happen only when asked for, by the
host's clock around synchronous copies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder_host.errors import BuilderError
from runtime_edge.arrays import NUMPY_TYPES, empty_aligned
from runtime_edge.device_bindings import DeviceBindings
from runtime_edge.engine import Engine

Array = Any


@dataclass(frozen=True, slots=True)
class Query:
    """One inference; all times in milliseconds since the measuring began."""

    start_enqueue: float
    end_enqueue: float
    start_h2d: float
    end_h2d: float
    start_compute: float
    end_compute: float
    start_d2h: float
    end_d2h: float

    @property
    def enqueue(self) -> float:
        """Host time inside enqueue."""
        return self.end_enqueue - self.start_enqueue

    @property
    def h2d(self) -> float:
        """Copy of the inputs."""
        return self.end_h2d - self.start_h2d

    @property
    def compute(self) -> float:
        """Device time of the inference."""
        return self.end_compute - self.start_compute

    @property
    def d2h(self) -> float:
        """Copy of the outputs."""
        return self.end_d2h - self.start_d2h

    @property
    def latency(self) -> float:
        """Inputs, compute and outputs together."""
        return self.h2d + self.compute + self.d2h


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure; times in milliseconds, duration -1 means until interrupted."""

    warm_up_ms: float
    duration_s: float
    iterations: int
    idle_ms: float
    has_transfers: bool


class Session:
    """A context with its stream and memory for all bindings."""

    def __init__(self, engine: Engine, profile: str, inputs: Mapping[str, Array]) -> None:
        """Take memory and upload the inputs."""
        self.engine = engine
        self.context = engine.create_context(profile=profile)
        self.stream = engine.create_stream()
        self._begin, self._end = engine.create_event(), engine.create_event()
        self.inputs = dict(inputs)
        self.outputs: dict[str, Array] = {}
        self._memory = DeviceBindings(engine, profile)
        self._addresses = self._memory.addresses
        for binding, shape in zip(engine.bindings, self.context.profile.shapes, strict=True):
            if not binding.is_input:
                self.outputs[binding.name] = empty_aligned(shape, binding.dtype)
        self.upload()

    def upload(self) -> None:
        """Copy the inputs to the device."""
        self._memory.write({n: memoryview(array).cast("B") for n, array in self.inputs.items()})

    def download(self) -> None:
        """Copy the outputs to the host."""
        for name, array in self.outputs.items():
            data = self._memory.read(name)
            array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)

    def run(self, zero: float, *, has_transfers: bool) -> Query:
        """One inference, timed; `zero` is the host's clock when measuring began."""
        start_h2d = time.perf_counter()
        if has_transfers:
            self.upload()
        end_h2d = time.perf_counter() if has_transfers else start_h2d
        self.stream.record(self._begin)
        start = time.perf_counter()
        self.context.enqueue(self._addresses, self.stream)
        enqueued = time.perf_counter()
        self.stream.record(self._end)
        self.stream.synchronize()
        done = time.perf_counter()
        compute = (self._end.time_us() - self._begin.time_us()) / 1e6
        if has_transfers:
            self.download()
        end_d2h = time.perf_counter() if has_transfers else done
        moments = (start, enqueued, start_h2d, end_h2d, done - compute, done, done, end_d2h)
        return Query(*((moment - zero) * 1e3 for moment in moments))

    def step_times(self, repeats: int) -> Any:
        """Times of the steps, see `ExecutionContext.measure_steps`."""
        return self.context.measure_steps(self._addresses, repeats=repeats)

    def close(self) -> None:
        """Give everything back."""
        self.stream.close()
        self.context.close()
        self._memory.close()


def measure(sessions: list[Session], pace: Pace) -> tuple[list[Query], float]:
    """Run all sessions at once.

    Returns:
        Queries by their start, and the seconds from the first enqueue after the warm-up to the end.
    """
    barrier = threading.Barrier(len(sessions))
    is_over = threading.Event()  # set by the first that fails or is interrupted
    found: list[list[Query]] = [[] for _ in sessions]
    errors: list[BaseException] = []
    zero = time.perf_counter()

    def work(index: int) -> None:
        session = sessions[index]
        try:
            warm = time.perf_counter() + pace.warm_up_ms / 1e3
            while True:
                session.run(zero, has_transfers=pace.has_transfers)
                if time.perf_counter() >= warm or is_over.is_set():
                    break
            barrier.wait()
            end = time.perf_counter() + pace.duration_s
            while not is_over.is_set() and (
                pace.duration_s < 0
                or time.perf_counter() < end
                or len(found[index]) < pace.iterations
            ):
                found[index].append(session.run(zero, has_transfers=pace.has_transfers))
                if pace.idle_ms:
                    time.sleep(pace.idle_ms / 1e3)
        except BaseException as error:
            errors.append(error)
            is_over.set()
            barrier.abort()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, len(sessions))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    interrupted = [error for error in errors if isinstance(error, KeyboardInterrupt)]
    others = [
        e for e in errors if not isinstance(e, (KeyboardInterrupt, threading.BrokenBarrierError))
    ]
    if others:
        raise others[0]
    queries = sorted((q for row in found for q in row), key=lambda query: query.start_enqueue)
    if not queries:
        raise interrupted[0] if interrupted else errors[0]
    wall_s = (max(q.end_d2h for q in queries) - queries[0].start_enqueue) / 1e3
    return queries, wall_s


def input_arrays(
    engine: Engine, profile: str, files: Mapping[str, Any], seed: int = 0
) -> dict[str, Array]:
    """Inputs from files (.npy or raw bytes), the others random.

    Raises:
        BuilderError: a file is missing, of the wrong size, or names no input.
    """
    names = [binding.name for binding in engine.bindings if binding.is_input]
    unknown = [name for name in files if name not in names]
    if unknown:
        raise BuilderError(f"no input '{unknown[0]}'; the plan has {', '.join(names)}")
    rng = np.random.default_rng(seed)
    arrays = {}
    for binding in engine.bindings:
        if not binding.is_input:
            continue
        shape = engine.binding_shape(binding.name, profile)
        array = empty_aligned(shape, binding.dtype)
        if binding.name in files:
            array[...] = read_tensor(files[binding.name], shape, NUMPY_TYPES[binding.dtype])
        elif binding.dtype.is_float:
            array[...] = rng.uniform(-1, 1, shape)
        else:
            array[...] = rng.integers(0, 2, shape)
        arrays[binding.name] = array
    return arrays


def read_tensor(path: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """A tensor from a .npy file, or from raw bytes. Raises BuilderError."""
    try:
        if str(path).endswith(".npy"):
            array = np.load(path, allow_pickle=False)
        else:
            array = np.fromfile(path, dtype)
    except (OSError, ValueError) as error:
        raise BuilderError(f"{path}: {error}") from error
    if array.size != int(np.prod(shape)) or array.dtype != dtype:
        raise BuilderError(
            f"{path}: holds {array.size} elements of {array.dtype}, the binding has "
            f"{int(np.prod(shape))} of {np.dtype(dtype)} ({'x'.join(map(str, shape))})"
        )
    return array.reshape(shape)
