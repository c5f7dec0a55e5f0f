"""Measuring in this process: the one builder module that uses the edge runtime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boards.conditions import conditions_text, read_conditions
from builder_host.codegen.toolchain_c import CToolchain
from builder_host.kernels.family import Launch
from builder_host.measure.base import MeasureJob
from builder_host.tune.timing_cache import Timing
from builder_host.verification import stored_type
from planformat.canary import canary_input
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Plan
from planformat.tensors import storage_elems
from planformat.writer import plan_bytes

_PLAN_REPEATS = 30


def local_fingerprint() -> DeviceFingerprint:
    """Fingerprint of this machine."""
    from runtime_edge.probe import probe_device

    return probe_device()


def load_context(plan: Plan) -> Any:
    """An execution context of a plan for this machine (`runtime_edge.ExecutionContext`)."""
    return load_engine(plan).create_context()


def load_engine(plan: Plan) -> Any:
    """A plan loaded on this machine without its canary (`runtime_edge.Engine`)."""
    import runtime_edge

    return runtime_edge.load(plan_bytes(plan), canary=False)


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
        self.flush_bytes = flush_bytes

    def measure(self, jobs: Sequence[MeasureJob], num_workers: int) -> list[Timing]:
        """Time every job; jobs of one group are interleaved. See `Measurer`."""
        from runtime_edge.tuning import CpuTuneDevice, TuneJob, TuneLaunch, tune

        tune_jobs = [
            TuneJob(
                Path(job.object_path).read_bytes(),
                tuple(
                    TuneLaunch(
                        launch.symbol,
                        (launch.num_units, 1, 1),
                        scratch_bytes_per_worker=launch.scratch_bytes_per_worker,
                    )
                    for launch in job.launches
                    if isinstance(launch, Launch)
                ),
                job.argument_bytes,
                job.group,
            )
            for job in jobs
        ]
        support = self.toolchain.link_shared([], exported=[])
        device = CpuTuneDevice(support, num_workers=num_workers, flush_bytes=self.flush_bytes)
        try:
            results = tune(
                device, tune_jobs, lambda done, total: self.progress("measure", done, total)
            )
        finally:
            device.close()
        observed = conditions_text(read_conditions())
        return [replace(Timing(*astuple(result)), observed=observed) for result in results]

    def run_canary(self, plan: Plan, seed: int) -> dict[str, npt.NDArray[Any]]:
        """Outputs of a plan, by name, for the canary inputs of a seed."""
        context, inputs = self._context(plan, seed)
        types = {binding.name: stored_type(binding.dtype) for binding in plan.bindings}
        return {
            name: np.array(values).view(types[name])  # the runtime gives bfloat16 as raw bits
            for name, values in context.execute(inputs).items()
        }

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
        return replace(_summary(times_us), observed=conditions_text(read_conditions()))

    def _context(self, plan: Plan, seed: int) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
        import runtime_edge
        from runtime_edge.arrays import NUMPY_TYPES

        engine = runtime_edge.load(plan_bytes(plan), canary=False)
        shapes = plan.variants[0].profiles[0].shapes
        inputs = {
            binding.name: np.frombuffer(
                canary_input(seed, index, storage_elems(shape, binding.format), binding.dtype),
                dtype=NUMPY_TYPES[binding.dtype],
            ).reshape(shape)
            for index, (binding, shape) in enumerate(zip(plan.bindings, shapes, strict=True))
            if binding.is_input
        }
        return engine.create_context(), inputs


def _summary(times_us: Sequence[float]) -> Timing:
    ordered = sorted(times_us)
    count = len(ordered)
    return Timing(
        round(statistics.median(ordered), 3),
        round(ordered[int(0.2 * (count - 1))], 3),
        round(ordered[int(0.8 * (count - 1))], 3),
        count,
    )
