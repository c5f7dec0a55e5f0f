"""One version of a served plan on its device: engine, contexts, latencies; runs batches."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from planformat.canary import canary_input
from planformat.plan import Binding
from planformat.reader import OpenPlan
from planformat.tensors import storage_elems
from runtime_edge.config import RuntimeConfig
from runtime_edge.context import ExecutionContext
from runtime_edge.device.base import Device, Stream
from runtime_edge.engine import Engine
from runtime_edge.serve.config import PlanConfig
from runtime_edge.serve.lanes import Lane, find_lanes
from runtime_edge.serve.latency import LatencyModel, ProfileLatency
from runtime_edge.serve.memory_report import (
    REGION_ALIGNMENT_BYTES,
    MemoryNeeds,
    io_bytes,
    io_offsets,
)
from runtime_edge.serve.scheduler import Batch

WARM_UP_RUNS = 3


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
    """Memory that the plans of one stream share: they never run at the same time.

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
        outputs: per job, per output binding: bytes; empty after an error.
        rows: that the executions computed, padding included; num_runs: executions.
    """

    outputs: list[list[bytes]]
    times: Times
    num_runs: int = 0
    rows: int = 0
    error: Exception | None = None


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
        needs: device memory.
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
        self.num_inputs = sum(b.is_input for b in self.bindings)
        self._device = device
        self._regions: list[Region] = []
        self._runners: dict[str, _Runner] = {}
        self._stream: Stream | None = None
        try:
            profiles = [self.engine.profile(name) for name in self.engine.profiles]
            self.lanes = find_lanes(self.bindings, profiles)
            self.needs = self._measure_needs()
            memory.reserve(self.needs.arena, self.needs.io)
            assert memory.arena is not None
            assert memory.io is not None
            self._regions = [memory.arena.retain(), memory.io.retain()]
            for lane in self.lanes:
                for name, rows in zip(lane.profiles, lane.rows, strict=True):
                    self._runners[name] = self._make_runner(name, rows)
            self._stream = self.engine.create_stream()
            self.latencies: dict[Lane, LatencyModel] = {}
        except BaseException:
            self.close()
            raise

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Inputs, then outputs."""
        return self.engine.bindings

    @property
    def max_input_bytes(self) -> int:
        """Inputs of the largest profile."""
        return max(
            sum(self.engine.binding_bytes(b.name, name) for b in self.bindings if b.is_input)
            for name in self.engine.profiles
        )

    def match(self, shapes: Sequence[tuple[int, ...]]) -> tuple[Lane, int] | None:
        """Lane and rows of a request with these input shapes, in binding order."""
        for lane in self.lanes:
            rows = lane.rows_of(shapes)
            if rows is not None:
                return lane, rows
        return None

    def warm_up(self) -> None:
        """Run every profile on generated inputs and measure it. On the stream's thread."""
        for lane in self.lanes:
            profiles = []
            for name, rows in zip(lane.profiles, lane.rows, strict=True):
                times = [self.self_test(name) for _ in range(WARM_UP_RUNS)]
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
            if batch.rows > lane.max_rows:
                self._execute_split(batch, lane, result)
            else:
                self._execute_once(batch, lane, result)
        except Exception as error:  # becomes the answer of these requests, whatever it is
            result.outputs, result.error = [], error
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
        if len(batch.jobs) == 1 and batch.rows == runner.rows and not self._device.needs_staging:
            bound = self._bind_in_place(runner, batch.jobs[0].work.tensors)
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
            result.outputs.append(self._read_rows(runner, first, job.rows))
            first += job.rows
        result.num_runs = 1
        result.rows = runner.rows

    def _execute_split(self, batch: Batch, lane: Lane, result: BatchResult) -> None:
        """One request larger than any profile: piece by piece."""
        (job,) = batch.jobs
        pieces: list[list[bytes]] = []
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
        result.outputs.append([b"".join(column) for column in zip(*pieces, strict=True)])

    def _bind_in_place(self, runner: _Runner, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Addresses for one request that fills the profile: aligned inputs are not copied."""
        bound = dict(runner.bound)
        for index, tensor in enumerate(tensors):
            binding = self.bindings[index]
            if tensor.address and tensor.address % binding.dtype.size_bytes == 0:
                bound[binding.name] = tensor.address
            else:
                self._device.write(runner.addresses[index], tensor.data)
        return bound

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

    def _read_rows(self, runner: _Runner, first: int, rows: int) -> list[bytes]:
        return [
            self._device.read(
                runner.addresses[index] + first * runner.row_bytes[index],
                rows * runner.row_bytes[index],
            )
            for index in range(self.num_inputs, len(self.bindings))
        ]

    def _run(self, runner: _Runner, bound: dict[str, int]) -> None:
        stream = self._stream
        assert stream is not None
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

    def _measure_needs(self) -> MemoryNeeds:
        engine = self.engine
        return MemoryNeeds(
            engine.weights_bytes,
            max(engine.context_bytes(name) for name in engine.profiles),
            max(io_bytes(engine.plan, engine.profile(name)) for name in engine.profiles),
        )


def _index_for(lane: Lane, rows: int) -> int:
    return next(i for i, own in enumerate(lane.rows) if own >= rows)
