"""Measuring in this process: the one builder module that uses the edge runtime."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boards.conditions import conditions_text, read_conditions
from builder_host.codegen.toolchain_c import CToolchain
from builder_host.emit.verification import stored_type
from builder_host.errors import TargetError
from builder_host.kernels.family import GridLaunch, Launch
from builder_host.measure.base import MeasureJob, PlanTrial
from builder_host.tune.timing_cache import Timing
from planformat.canary import canary_input
from planformat.fingerprint import DeviceFingerprint, compare
from planformat.plan import Plan
from planformat.tensors import storage_elems

if TYPE_CHECKING:
    from runtime_edge.tuning import CpuTuneDevice, TuneLaunch
    from runtime_edge.tuning_cuda import CudaTuneDevice

log = logging.getLogger(__name__)


def local_fingerprint() -> DeviceFingerprint:
    """Fingerprint of this machine."""
    from runtime_edge.probe import probe_device

    return probe_device()


def load_context(plan: Plan) -> Any:
    """An execution context of a plan for this machine (`runtime_edge.ExecutionContext`)."""
    return load_engine(plan).create_context()


def load_engine(plan: Plan) -> Any:
    """A plan loaded on this machine without its canary (`runtime_edge.Engine`).

    Raises:
        TargetError: this machine has no device that the plan runs on.
    """
    import runtime_edge

    try:
        return runtime_edge.load(plan, canary=False)
    except runtime_edge.RuntimeEdgeError as error:
        raise TargetError(f"this machine cannot run the plan: {error}") from error


def gpu_fingerprint(number: int) -> DeviceFingerprint:
    """Fingerprint of a GPU of this machine.

    Raises:
        TargetError: no driver, or no such GPU.
    """
    from runtime_edge.device.cuda_probe import probe_gpu
    from runtime_edge.errors import RuntimeEdgeError

    try:
        return probe_gpu(number)
    except RuntimeEdgeError as error:
        raise TargetError(f"target 'cuda:{number}': {error}") from error


def local_gpu(fingerprint: DeviceFingerprint) -> int | None:
    """Number of this machine's GPU with exactly that fingerprint, None when there is none."""
    from runtime_edge.device.cuda_driver import open_driver
    from runtime_edge.device.cuda_probe import num_gpus, probe_gpu
    from runtime_edge.errors import RuntimeEdgeError

    try:
        count = num_gpus(open_driver())
    except RuntimeEdgeError:  # a workstation without a GPU: the usual case
        return None
    if "pycuda" not in sys.modules and importlib.util.find_spec("pycuda") is None:
        log.info("this machine has a GPU, but no pycuda: plans for it are not tried here")
        return None
    found = (n for n in range(count) if not compare(fingerprint, probe_gpu(n)))
    return next(found, None)


def cpu_tune_device(toolchain: CToolchain, flush_bytes: int) -> Callable[[int], CpuTuneDevice]:
    """Opens this machine's CPU for timing.

    Args:
        toolchain: links the support code that runs candidates.
        flush_bytes: how much memory is overwritten before each timed run; 0: none.
    """

    def opened(num_workers: int) -> CpuTuneDevice:
        from runtime_edge.tuning import CpuTuneDevice

        support = toolchain.link_shared([], exported=[])
        return CpuTuneDevice(support, num_workers=num_workers, flush_bytes=flush_bytes)

    return opened


def gpu_tune_device(number: int, flush_bytes: int) -> Callable[[int], CudaTuneDevice]:
    """Opens a GPU of this machine for timing; its L2 is overwritten if flush_bytes is not 0."""

    def opened(_num_workers: int) -> CudaTuneDevice:
        from runtime_edge.tuning_cuda import CudaTuneDevice

        return CudaTuneDevice(number, is_flushing=flush_bytes > 0)

    return opened


class LocalDevice:
    """A device of this machine: times candidates and whole plans."""

    def __init__(
        self,
        opened: Callable[[int], CpuTuneDevice | CudaTuneDevice],
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Make a device.

        Args:
            opened: opens it for timing with so many workers.
            progress: called with phase, items done, items in all.
        """
        self._opened = opened
        self.progress = progress

    def measure(self, jobs: Sequence[MeasureJob], num_workers: int) -> list[Timing]:
        """Time every job; jobs of one group are interleaved. See `Measurer`."""
        from runtime_edge.tuning import TuneJob, tune

        tune_jobs = [
            TuneJob(
                Path(job.object_path).read_bytes(),
                tuple(_tune_launch(launch) for launch in job.launches),
                job.argument_bytes,
                job.group,
            )
            for job in jobs
        ]
        device = self._opened(num_workers)
        try:
            results = tune(
                device, tune_jobs, lambda done, total: self.progress("measure", done, total)
            )
        finally:
            device.close()
        observed = conditions_text(read_conditions())
        return [replace(Timing(*astuple(result)), observed=observed) for result in results]

    def try_plan(self, plan: Plan, seed: int, is_timed: Sequence[bool]) -> list[PlanTrial]:
        """See `PlanDevice`."""
        return try_plan_here(plan, seed, is_timed)


def try_plan_here(plan: Plan, seed: int, is_timed: Sequence[bool]) -> list[PlanTrial]:
    """`PlanDevice.try_plan` on the device of this machine that the plan is for."""
    from runtime_edge.latency import measure_latency

    trials = []
    with load_engine(plan) as engine:
        for name, timed in zip(engine.profiles, is_timed, strict=True):
            outputs = _canary_outputs(engine, name, seed)
            timing = None
            if timed:
                timing = Timing(*measure_latency(engine, name, seed=seed))
                timing = replace(timing, observed=conditions_text(read_conditions()))
            trials.append(PlanTrial(outputs, timing))
    return trials


def _canary_outputs(engine: Any, profile: str, seed: int) -> dict[str, npt.NDArray[Any]]:
    from runtime_edge.arrays import NUMPY_TYPES

    types = {binding.name: stored_type(binding.dtype) for binding in engine.bindings}
    with engine.create_context(profile=profile) as context:
        inputs = {
            binding.name: np.frombuffer(
                canary_input(seed, index, storage_elems(shape, binding.format), binding.dtype),
                dtype=NUMPY_TYPES[binding.dtype],
            ).reshape(shape)
            for index, (binding, shape) in enumerate(
                zip(engine.bindings, context.profile.shapes, strict=True)
            )
            if binding.is_input
        }
        return {
            name: np.array(values).view(types[name])  # the runtime gives bfloat16 as raw bits
            for name, values in context.execute(inputs).items()
        }


def _tune_launch(launch: Launch | GridLaunch) -> TuneLaunch:
    from runtime_edge.tuning import TuneLaunch

    if isinstance(launch, Launch):
        units = (launch.num_units, 1, 1)
        scratch = launch.scratch_bytes_per_worker
        return TuneLaunch(launch.symbol, units, scratch_bytes_per_worker=scratch)
    return TuneLaunch(
        launch.symbol,
        launch.grid,
        launch.block,
        launch.cluster,
        launch.shared_memory_bytes,
        launch.is_dependent,
    )
