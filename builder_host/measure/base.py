"""Measuring: jobs in, timings out. Local, remote, bundle and cache-only share this interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from builder_host.kernels.family import GridLaunch, Launch
from builder_host.tune.timing_cache import Timing
from planformat.plan import Plan


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """One candidate.

    Attributes:
        object_path: compiled object that exports the launches' symbols.
        launches: run in order; their times add up.
        argument_bytes: size in bytes of every argument buffer, in argument order.
        group: jobs of one group solve the same problem; they are measured interleaved on the
            same buffers.
    """

    object_path: str
    launches: tuple[Launch | GridLaunch, ...]
    argument_bytes: tuple[int, ...]
    group: int


class Measurer(Protocol):
    """Times candidates on the target device."""

    def measure(self, jobs: Sequence[MeasureJob], num_workers: int) -> list[Timing]:
        """Time every job; the answer is in the order of the jobs. A failed job is a result."""
        ...


@dataclass(frozen=True, slots=True)
class PlanTrial:
    """A profile that was run: outputs by name, and the latency where it was asked for."""

    outputs: dict[str, npt.NDArray[Any]]
    timing: Timing | None


class PlanDevice(Measurer, Protocol):
    """Runs whole plans too."""

    def try_plan(self, plan: Plan, seed: int, is_timed: Sequence[bool]) -> list[PlanTrial]:
        """Run every profile of a plan (of one variant) on the canary inputs of a seed.

        Args:
            plan: is loaded once, without its canaries.
            seed: of the inputs.
            is_timed: for each profile, whether its latency is wanted: warm inferences one after
                another, see `runtime_edge.latency`.
        """
        ...
