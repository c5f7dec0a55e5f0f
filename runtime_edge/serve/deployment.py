"""One version of a served plan on its device: engine, contexts, latencies; runs batches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from planformat.canary import canary_input
from planformat.plan import Binding
from planformat.reader import OpenPlan
from planformat.tensors import storage_elems
from runtime_edge.config import RuntimeConfig
from runtime_edge.context import ExecutionContext
from runtime_edge.device.base import Device, Stream
from runtime_edge.engine import Engine
from runtime_edge.serve.config import PlanConfig
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.failure_captures import keep_failure
from runtime_edge.serve.known import Known
from runtime_edge.serve.lanes import Lane, find_lanes
from runtime_edge.serve.latency import LatencyModel, ProfileLatency
from runtime_edge.serve.memory_report import MemoryNeeds, io_bytes, io_offsets
from runtime_edge.serve.scheduler import Batch
from runtime_edge.serve.stream_memory import Region, StreamMemory

if TYPE_CHECKING:
    from runtime_edge.serve.infer_work import RequestText

WARM_UP_RUNS = 3


@dataclass(slots=True)
class Tensor:
    """Input data of one request.

    Attributes:
        data: its bytes; address: of the first, where a kernel may read them in place, else 0.
    """

    data: Any
    address: int = 0


@dataclass(slots=True)
class Times:
    """When the parts of one execution began, monotonic nanoseconds."""

    start_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    end_ns: int = 0


@dataclass(slots=True)
class BatchResult:
    """What came of a batch.

    Attributes:
        outputs: per job, per output binding: bytes, None where the plan wrote them to the place
            that the job named; empty after an error.
        rows: that the executions computed, padding included; num_runs: executions.
        refused: by index, jobs whose memory was taken away meanwhile.
    """

    outputs: list[list[bytes | None]]
    times: Times
    num_runs: int = 0
    rows: int = 0
    error: Exception | None = None
    refused: dict[int, RequestError] = field(default_factory=dict)


@dataclass(slots=True)
class _Runner:
    """One profile's context and where its bindings lie."""

    context: ExecutionContext
    rows: int
    addresses: list[int]
    row_bytes: list[int]
    bound: dict[str, int] = field(default_factory=dict)


class Deployment:
    """A loaded plan that can run. Made by `Deployment.load`; run on its stream's thread.

    Attributes:
        config: as the plan was configured; engine: the loaded plan.
        lanes: see lanes.py; latencies: one model per lane.
        needs: device memory; max_input_bytes: inputs of the largest profile.
        texts: requests' JSON that was checked before; belongs to the event loop's thread.
        path: of the file, links resolved; generation: counts the loads of this plan name.
        num_pending: requests that will still run, or are running, on it; is_retired: another one
            has taken its place. Both belong to the event loop's thread.
    """

    def __init__(
        self,
        config: PlanConfig,
        opened: OpenPlan,
        device: Device,
        memory: StreamMemory,
        generation: int,
    ) -> None:
        """Load engine and contexts; runs the canary in memory of its own.

        Raises:
            planformat.errors.PlanError, RuntimeEdgeError: as in `runtime_edge.load`.
        """
        self.config = config
        self.path = os.path.realpath(config.path)
        self.generation = generation
        self.num_pending = 0
        self.is_retired = False
        self.engine = Engine(
            opened.plan,
            source=config.path,
            opened=opened,
            device=device,
            allow=config.allow,
            canary=True,
            num_workers=config.threads or None,
            config=RuntimeConfig(strict=True),
        )
        self.texts: Known[RequestText] = Known()
        self.num_inputs = sum(b.is_input for b in self.bindings)
        self._device = device
        self._regions: list[Region] = []
        self._runners: dict[str, _Runner] = {}
        self._stream: Stream | None = None
        try:
            profiles = [self.engine.profile(name) for name in self.engine.profiles]
            self.lanes = find_lanes(self.bindings, profiles)
            self.max_input_bytes = self._measure_inputs()
            self.needs = self._measure_needs()
            memory.reserve(self.needs.arena, self.needs.io)
            assert memory.arena is not None
            assert memory.io is not None
            self._regions = [memory.arena.retain(), memory.io.retain()]
            for lane in self.lanes:
                for name, rows in zip(lane.profiles, lane.rows, strict=True):
                    self._runners[name] = self._make_runner(name, rows)
            if device.needs_staging:
                self._stream = self.engine.create_stream()
            self.latencies: dict[Lane, LatencyModel] = {}
        except BaseException:
            self.close()
            raise

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Inputs, then outputs."""
        return self.engine.bindings

    def match(self, shapes: Sequence[tuple[int, ...]]) -> tuple[Lane, int] | None:
        """Lane and rows of a request with these input shapes, in binding order."""
        for lane in self.lanes:
            rows = lane.rows_of(shapes)
            if rows is not None:
                return lane, rows
        return None

    def warm_up(self, run: Callable[[Callable[[], float]], float]) -> None:
        """Run every profile some times on generated inputs and measure it.

        Args:
            run: has one inference done on the stream's thread and returns its time.
        """
        for lane in self.lanes:
            profiles = []
            for name, rows in zip(lane.profiles, lane.rows, strict=True):
                one = partial(self.self_test, name)
                times = [run(one) for _ in range(WARM_UP_RUNS)]
                profiles.append(ProfileLatency(rows, name, min(times)))
            self.latencies[lane] = LatencyModel(profiles)

    def self_test(self, profile: str | None = None) -> float:
        """One inference on generated inputs; microseconds, copies included."""
        name = profile or self.engine.profiles[0]
        runner = self._runners[name]
        shapes = self.engine.profile(name).shapes
        inputs = [
            canary_input(1, index, storage_elems(shape, binding.format), binding.dtype)
            for index, (binding, shape) in enumerate(zip(self.bindings, shapes, strict=True))
            if binding.is_input
        ]
        start = time.perf_counter_ns()
        for address, data in zip(runner.addresses, inputs, strict=False):
            self._device.write(address, data)
        self._run(runner, runner.bound)
        for index in range(self.num_inputs, len(self.bindings)):
            self._device.read(runner.addresses[index], runner.row_bytes[index] * runner.rows)
        return (time.perf_counter_ns() - start) / 1000

    def execute(self, batch: Batch, lane: Lane) -> BatchResult:
        """Run a batch; errors are part of the result. On the stream's thread."""
        result = BatchResult([], Times(start_ns=time.monotonic_ns()))
        try:
            if not _find_lost(batch, result):
                result.outputs = [[] for _ in batch.jobs]
            elif batch.rows > lane.max_rows:
                self._execute_split(batch, lane, result)
            else:
                self._execute_once(batch, lane, result)
        except Exception as error:  # becomes the answer of these requests, whatever it is
            result.outputs, result.error = [], error
            if self.config.capture_failures:
                # a refused job's inputs are zeros, see _find_lost
                kept = (j for i, j in enumerate(batch.jobs) if i not in result.refused)
                keep_failure(self, next(kept, batch.jobs[0]).work, error)
        result.times.end_ns = time.monotonic_ns()
        model = self.latencies[lane]
        if result.error is None and result.num_runs == 1:
            times = result.times
            model.profile_for(batch.rows).update((times.end_ns - times.start_ns) / 1000)
        return result

    def close(self) -> None:
        """Give everything back; nothing may be running."""
        for runner in self._runners.values():
            runner.context.close()
        self._runners = {}
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        for region in self._regions:
            region.release()
        self._regions = []
        self.engine.close()

    def _execute_once(self, batch: Batch, lane: Lane, result: BatchResult) -> None:
        runner = self._runners[lane.profiles[_index_for(lane, batch.rows)]]
        bound = runner.bound
        direct: dict[int, int] = {}
        if len(batch.jobs) == 1 and batch.rows == runner.rows and not self._device.needs_staging:
            work = batch.jobs[0].work
            bound = self._bind_in_place(runner, work.tensors)
            direct = {
                index: address
                for index, address in work.direct_outputs().items()
                if self._is_aligned(index, address)
            }
            bound.update((self.bindings[index].name, at) for index, at in direct.items())
        else:
            first = 0
            for job in batch.jobs:
                self._write_rows(runner, job.work.tensors, first)
                first += job.rows
            self._clear_rows(runner, first)
        result.times.infer_ns = time.monotonic_ns()
        self._run(runner, bound)
        result.times.output_ns = time.monotonic_ns()
        first = 0
        for job in batch.jobs:
            result.outputs.append(self._read_rows(runner, first, job.rows, direct))
            first += job.rows
        result.num_runs = 1
        result.rows = runner.rows

    def _execute_split(self, batch: Batch, lane: Lane, result: BatchResult) -> None:
        """One request larger than any profile: piece by piece."""
        (job,) = batch.jobs
        pieces: list[list[bytes | None]] = []
        result.times.infer_ns = time.monotonic_ns()
        for begin in range(0, job.rows, lane.max_rows):
            rows = min(lane.max_rows, job.rows - begin)
            runner = self._runners[lane.profiles[_index_for(lane, rows)]]
            part = [
                Tensor(memoryview(tensor.data)[begin * size : (begin + rows) * size])
                for tensor, size in zip(job.work.tensors, runner.row_bytes, strict=False)
            ]
            self._write_rows(runner, part, 0)
            self._clear_rows(runner, rows)
            self._run(runner, runner.bound)
            pieces.append(self._read_rows(runner, 0, rows))
            result.num_runs += 1
            result.rows += runner.rows
        result.times.output_ns = time.monotonic_ns()
        result.outputs.append(
            [b"".join(part for part in column if part) for column in zip(*pieces, strict=True)]
        )

    def _bind_in_place(self, runner: _Runner, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Addresses for one request that fills the profile: aligned inputs are not copied."""
        bound = dict(runner.bound)
        for index, tensor in enumerate(tensors):
            binding = self.bindings[index]
            if tensor.address and self._is_aligned(index, tensor.address):
                bound[binding.name] = tensor.address
            else:
                self._device.write(runner.addresses[index], tensor.data)
        return bound

    def _is_aligned(self, index: int, address: int) -> bool:
        return address % self.bindings[index].dtype.size_bytes == 0

    def _write_rows(self, runner: _Runner, tensors: Sequence[Tensor], first: int) -> None:
        for index, tensor in enumerate(tensors):
            offset = first * runner.row_bytes[index]
            self._device.write(runner.addresses[index] + offset, tensor.data)

    def _clear_rows(self, runner: _Runner, first: int) -> None:
        """Padding rows are computed too: no client's data, no wild index may be left in them."""
        num_rows = runner.rows - first
        for index in range(self.num_inputs if num_rows else 0):
            size = runner.row_bytes[index]
            self._device.write(runner.addresses[index] + first * size, bytes(num_rows * size))

    def _read_rows(
        self, runner: _Runner, first: int, rows: int, direct: Collection[int] = ()
    ) -> list[bytes | None]:
        return [
            None
            if index in direct
            else self._device.read(
                runner.addresses[index] + first * runner.row_bytes[index],
                rows * runner.row_bytes[index],
            )
            for index in range(self.num_inputs, len(self.bindings))
        ]

    def _run(self, runner: _Runner, bound: dict[str, int]) -> None:
        stream = self._stream
        if stream is None:  # a CPU's work is done right here: no other thread need be woken
            runner.context.run(bound)
            return
        runner.context.enqueue(bound, stream)
        stream.synchronize()

    def _make_runner(self, name: str, rows: int) -> _Runner:
        engine = self.engine
        arena, io = self._regions
        needed = engine.context_bytes(name)
        context = engine.create_context(
            profile=name, arena=(arena.address, arena.nbytes) if needed else None
        )
        offsets = io_offsets(engine.plan, engine.profile(name))
        addresses = [io.address + offset for offset in offsets]
        sizes = [engine.binding_bytes(b.name, name) for b in self.bindings]
        return _Runner(
            context,
            rows,
            addresses,
            [size // rows for size in sizes],
            {b.name: a for b, a in zip(self.bindings, addresses, strict=True)},
        )

    def _measure_inputs(self) -> int:
        return max(
            sum(self.engine.binding_bytes(b.name, name) for b in self.bindings if b.is_input)
            for name in self.engine.profiles
        )

    def _measure_needs(self) -> MemoryNeeds:
        engine = self.engine
        return MemoryNeeds(
            engine.weights_bytes,
            max(engine.context_bytes(name) for name in engine.profiles),
            max(io_bytes(engine.plan, engine.profile(name)) for name in engine.profiles),
        )


def _index_for(lane: Lane, rows: int) -> int:
    return next(i for i, own in enumerate(lane.rows) if own >= rows)


def _find_lost(batch: Batch, result: BatchResult) -> bool:
    """Refuse jobs whose shared memory is gone; false when no other is left.

    The others are computed as if nothing had happened, with zeros in the place of the lost rows.
    """
    for index, job in enumerate(batch.jobs):
        try:
            job.work.check_memory()
        except RequestError as error:
            result.refused[index] = error
            job.work.tensors = [Tensor(bytes(len(tensor.data))) for tensor in job.work.tensors]
    return len(result.refused) < len(batch.jobs)
