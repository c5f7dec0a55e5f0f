"""Measuring in this process: the one builder module that uses the edge runtime.

Candidates for one problem are timed interleaved on the same buffers, so that a change of clock or a
neighbour's load meets all of them alike. Before each run the level-2 cache is overwritten: in a
network the weights and the inputs of a layer were last touched one inference, or one layer, ago.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen.toolchain_c import CToolchain
from builder_host.kernels.family import Launch
from builder_host.measure.base import MeasureJob
from builder_host.network.network import NUMPY_OF_DTYPE
from builder_host.tune.timing_cache import Timing
from planformat.canary import canary_input
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Plan
from planformat.tensors import storage_elems
from planformat.writer import plan_bytes

_MIN_ROUNDS = 5
_MAX_ROUNDS = 25
_ROUND_BUDGET_US = 20_000.0  # measuring time per candidate that rounds beyond the least may take
_HOPELESS = 2.0  # after a few rounds a candidate this many times behind the best is left alone
_PLAN_REPEATS = 30
_ALIGN_BYTES = 64


def local_fingerprint() -> DeviceFingerprint:
    """Fingerprint of this machine."""
    from runtime_edge.probe import probe_device

    return probe_device()


@dataclass(slots=True)
class _Running:
    """A candidate while it is being timed; `module` holds its code."""

    index: int
    module: Any
    timer: Any
    times_us: list[float]


class LocalDevice:
    """This machine's CPU: times candidates and whole plans."""

    def __init__(
        self,
        toolchain: CToolchain,
        progress: Callable[[str, int, int], None],
        *,
        flush_bytes: int,
    ) -> None:
        """Make a device.

        Args:
            toolchain: links the support code that runs candidates.
            progress: called with phase, items done, items in all.
            flush_bytes: how much memory is overwritten before each timed run; 0: none.
        """
        self.toolchain = toolchain
        self.progress = progress
        self._flush = np.zeros(flush_bytes, dtype=np.uint8) if flush_bytes else None

    def measure(self, jobs: Sequence[MeasureJob], num_workers: int) -> list[Timing]:
        """Time every job; jobs of one group are interleaved. See `Measurer`."""
        from runtime_edge.device.cpu_timing import CpuModule

        support = CpuModule(self.toolchain.link_shared([], exported=[]), "support code")
        groups: dict[int, list[int]] = {}
        for index, job in enumerate(jobs):
            groups.setdefault(job.group, []).append(index)
        timings: list[Timing | None] = [None] * len(jobs)
        done = 0
        for members in groups.values():
            self.progress("measure", done, len(jobs))
            for index, timing in self._measure_group(support, jobs, members, num_workers):
                timings[index] = timing
            done += len(members)
        return [timing or Timing(None, error="was not measured") for timing in timings]

    def _measure_group(
        self, support: Any, jobs: Sequence[MeasureJob], members: Sequence[int], num_workers: int
    ) -> list[tuple[int, Timing]]:
        from runtime_edge.device.cpu_timing import CpuModule, CpuTimer, TimedLaunch

        num_arguments = max(len(jobs[i].argument_bytes) for i in members)
        buffers = [
            _filled(max(_size(jobs[i], position) for i in members))
            for position in range(num_arguments)
        ]
        running: list[_Running] = []
        for index in members:
            job = jobs[index]
            module = CpuModule(Path(job.object_path).read_bytes(), job.launches[0].symbol)
            addresses = tuple(b.ctypes.data for b in buffers[: len(job.argument_bytes)])
            launches = [
                TimedLaunch(
                    module.address(launch.symbol),
                    addresses,
                    launch.num_units,
                    launch.scratch_bytes_per_worker,
                )
                for launch in job.launches
                if isinstance(launch, Launch)
            ]
            timer = CpuTimer(support, launches, num_workers=num_workers)
            running.append(_Running(index, module, timer, []))
        self._rounds(running)
        for one in running:
            one.timer.close()
        return [(one.index, _summary(one.times_us)) for one in running]

    def _rounds(self, running: Sequence[_Running]) -> None:
        for one in running:
            one.timer.run()  # faults pages in, wakes the threads
        active = list(running)
        for number in range(_MAX_ROUNDS):
            for one in active:
                one.times_us.extend(one.timer.measure(1, flush=self._flush))
            if number + 1 < _MIN_ROUNDS:
                continue
            best = min(statistics.median(one.times_us) for one in active)
            active = [
                one
                for one in active
                if min(one.times_us) <= best * _HOPELESS
                and sum(one.times_us) < _ROUND_BUDGET_US * max(1.0, best / _ROUND_BUDGET_US)
            ]
            if not active:
                return

    def run_canary(self, plan: Plan, seed: int) -> dict[str, npt.NDArray[Any]]:
        """Outputs of a plan, by name, for the canary inputs of a seed."""
        context, inputs = self._context(plan, seed)
        return {name: np.array(values) for name, values in context.execute(inputs).items()}

    def time_plan(self, plan: Plan, seed: int) -> Timing:
        """Latency of whole inferences, warm."""
        import time

        context, inputs = self._context(plan, seed)
        context.execute(inputs)
        times_us = []
        for _ in range(_PLAN_REPEATS):
            start = time.perf_counter_ns()
            context.execute(inputs)
            times_us.append((time.perf_counter_ns() - start) / 1000)
        return _summary(times_us)

    def _context(self, plan: Plan, seed: int) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
        import runtime_edge

        engine = runtime_edge.load(plan_bytes(plan), canary=False)
        shapes = plan.variants[0].profiles[0].shapes
        inputs = {
            binding.name: np.frombuffer(
                canary_input(seed, index, storage_elems(shape, binding.format), binding.dtype),
                dtype=NUMPY_OF_DTYPE[binding.dtype],
            ).reshape(shape)
            for index, (binding, shape) in enumerate(zip(plan.bindings, shapes, strict=True))
            if binding.is_input
        }
        return engine.create_context(), inputs


def _size(job: MeasureJob, position: int) -> int:
    return job.argument_bytes[position] if position < len(job.argument_bytes) else 0


def _filled(num_bytes: int) -> npt.NDArray[np.float32]:
    """Aligned memory of zeros: no denormals, no overflow, a legal index."""
    raw = np.empty(num_bytes // 4 + 2 * _ALIGN_BYTES // 4 + 1, dtype=np.float32)
    skip = (-raw.ctypes.data % _ALIGN_BYTES) // 4
    aligned = raw[skip:]
    aligned.fill(0.0)
    return aligned


def _summary(times_us: Sequence[float]) -> Timing:
    ordered = sorted(times_us)
    count = len(ordered)
    return Timing(
        round(statistics.median(ordered), 3),
        round(ordered[int(0.2 * (count - 1))], 3),
        round(ordered[int(0.8 * (count - 1))], 3),
        count,
    )
