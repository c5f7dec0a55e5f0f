"""What the cost models expect of a network on a target: nothing is compiled, nothing is run.

The tactics are those that a build takes without timings, so that arena and steps are those of its
plan. Times are predictions: how far off they are is stated in benchmarks/RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from builder_host.config import BuilderConfig
from builder_host.emit.early_start import start_early
from builder_host.emit.operation_count import count_operations
from builder_host.emit.plan import arena_lifetimes
from builder_host.emit.tuned import TunedOperation, TunedProfile
from builder_host.errors import UnsupportedError
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.lowering.draft import make_draft
from builder_host.lowering.memory_plan import ArenaPlan, plan_memory
from builder_host.network.network import Network
from builder_host.targets.backend import TargetWithoutTools
from builder_host.tune.select import Candidate, Selection
from builder_host.tune.timing_cache import TimingKey
from planformat.fingerprint import DeviceFingerprint

# Share of the shorter of two steps side by side that costs nothing: fitted on GoogLeNet and
# SqueezeNet on an H200, where 0 gives 1.40 and 1.04 of the measured latency and 1 gives 0.68, 0.84.
_HIDDEN = 0.5


@dataclass(frozen=True, slots=True)
class PredictedStep:
    """One operation: kernel family, expected time, work.

    Attributes:
        name, family: of the operation.
        estimate_us: by the family's cost model.
        num_operations: arithmetic, a multiply-add counts two.
        constant_bytes: of its constants as the network stores them.
        starts_early: it runs beside the one ahead of it (`emit.early_start`).
    """

    name: str
    family: str
    estimate_us: float
    num_operations: int
    constant_bytes: int
    starts_early: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one network on one target; `arena` has the size and its lower bound."""

    steps: tuple[PredictedStep, ...]
    arena: ArenaPlan

    @property
    def latency_us(self) -> float:
        """Sum of the steps' estimates, less what steps that start early hide of each other."""
        total_us = ahead_us = 0.0
        for step in self.steps:
            total_us += step.estimate_us
            if step.starts_early:
                total_us -= _HIDDEN * min(step.estimate_us, ahead_us)
                ahead_us = max(step.estimate_us, ahead_us)
            else:
                ahead_us = step.estimate_us
        return total_us

    @property
    def num_operations(self) -> int:
        """Arithmetic of one inference."""
        return sum(step.num_operations for step in self.steps)

    @property
    def constant_bytes(self) -> int:
        """Weights, which every inference reads once."""
        return sum(step.constant_bytes for step in self.steps)


def predict(
    network: Network,
    fingerprint: DeviceFingerprint,
    hardware: Mapping[str, int | float],
    config: BuilderConfig,
) -> Prediction:
    """Choose tactics by the cost models and plan the arena.

    Args:
        network: as imported; it is left as it is.
        fingerprint: of the target.
        hardware: facts of its board file (`target_hardware`).
        config: precision and rules count; nothing is measured or checked.

    Raises:
        TargetError: nothing is generated for the fingerprint.
        UnsupportedError: a layer that no family computes there.
    """
    backend = TargetWithoutTools(fingerprint, hardware)
    num_workers = config.num_threads or int(getattr(backend.target, "num_cores", 1))
    unchecked = replace(config, is_checked=False)
    draft = make_draft(
        "predicted", network, unchecked, backend, num_workers=num_workers, trace=None
    )
    choice = FamilyChoice(backend.families, backend.target)
    chosen: dict[str, Selection] = {}
    tuned: list[TunedOperation] = []
    for operation in draft.operations:
        text = operation.problem.text()
        if text not in chosen:
            chosen[text] = _first_tactic(operation.problem, choice)
        program = chosen[text].candidate.program(backend.target)
        tuned.append(TunedOperation(operation, chosen[text], program))
    profile = TunedProfile(draft, tuple(tuned))
    steps = tuple(
        _step(item, starts_early=started.program is not item.program)
        for item, started in zip(tuned, start_early(tuned), strict=True)
    )
    return Prediction(steps, plan_memory(arena_lifetimes(profile)))


def _first_tactic(problem: Problem, choice: FamilyChoice) -> Selection:
    ranked = choice.ranked(problem)
    if not ranked:
        raise UnsupportedError(f"no kernel family computes {problem.text()}")
    estimate_us, family = ranked[0]
    tactic = family.tactics(problem, choice.target)[0]
    key = TimingKey("", problem.text(), tactic.text, family.template_hash, "", "predicted")
    return Selection(Candidate(problem, family, tactic, estimate_us, key), None, 1)


def _step(item: TunedOperation, *, starts_early: bool) -> PredictedStep:
    candidate = item.selection.candidate
    constants = (t.values for t in item.operation.constants if t is not None)
    return PredictedStep(
        item.operation.name,
        candidate.family.name,
        candidate.estimate_us,
        count_operations(candidate.problem),
        sum(values.nbytes for values in constants if values is not None),
        starts_early,
    )
