"""What was built and why: a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from builder_host.emit.tuned import TunedProfile
from builder_host.tune.select import TuneSummary
from planformat.plan import Plan


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation: what it computes, how, in what time (microseconds)."""

    profile: str
    name: str
    kind: str
    tactic: str
    num_candidates: int
    measured_us: float | None
    predicted_us: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Figures of one build; sizes in bytes, times in microseconds.

    `accuracy` holds the relative L2 error of each output against the float64 reference: that of the
    network as imported, or as quantised where it computes with 8-bit integers. `precision` holds
    what to know about that. Arena and latency are those of the first profile.
    """

    name: str
    operations: tuple[OperationRow, ...]
    tuning: TuneSummary
    weights_bytes: int
    code_bytes: int
    arena_bytes: int
    arena_lower_bound_bytes: int
    sum_of_tensors_bytes: int
    latency_us: float | None
    accuracy: Mapping[str, float]
    precision: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The whole report as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def text(self) -> str:
        """A table for people."""
        lines = [f"{'operation':40}  {'tactic':48}  {'us':>9}"]
        profile = self.operations[0].profile if self.operations else ""
        for row in self.operations:
            if row.profile != profile:
                profile = row.profile
                lines.append(f"profile {profile}")
            time_us = row.measured_us if row.measured_us is not None else row.predicted_us
            mark = "" if row.measured_us is not None else " predicted"
            lines.append(f"{row.name[:40]:40}  {row.tactic[:48]:48}  {time_us:9.1f}{mark}")
        bound = self.arena_lower_bound_bytes
        lines += [
            "",
            f"steps {len(self.operations)}, weights {self.weights_bytes:,} B, "
            f"code {self.code_bytes:,} B",
            f"activation arena {self.arena_bytes:,} B, lower bound {bound:,} B "
            f"({self.arena_bytes / bound:.3f} of it), without sharing "
            f"{self.sum_of_tensors_bytes:,} B"
            if bound
            else "activation arena: none needed",
            f"tuning: {self.tuning.num_problems} problems, {self.tuning.num_candidates} "
            f"candidates, {self.tuning.num_cached} from the cache, "
            f"{self.tuning.num_measured} measured, {self.tuning.num_failed} failed",
        ]
        if self.latency_us is not None:
            lines.append(f"latency {self.latency_us:,.1f} us (median, warm)")
        lines += [f"precision: {note}" for note in self.precision]
        for name, error in self.accuracy.items():
            lines.append(f"output '{name}': relative L2 error {error:.2e} against float64")
        return "\n".join(lines)


def make_report(
    plan: Plan,
    tuned: Sequence[TunedProfile],
    summary: TuneSummary,
    accuracy: Mapping[str, float],
) -> BuildReport:
    """Collect the figures of a build."""
    rows = []
    for built in tuned:
        for item in built.operations:
            candidate, timing = item.selection.candidate, item.selection.timing
            problem = candidate.problem
            rows.append(
                OperationRow(
                    built.draft.name,
                    item.operation.name,
                    problem.kind,
                    candidate.tactic.text,
                    item.selection.num_candidates,
                    timing.median_us if timing is not None else None,
                    candidate.estimate_us,
                    tuple(layout.text() for layout in problem.inputs),
                    tuple(layout.text() for layout in problem.outputs),
                )
            )
    profile, first = plan.variants[0].profiles[0], tuned[0]
    roots = {
        view.root: first.draft.placement.buffer_bytes(view.root)
        for item in first.operations
        for view in item.operation.outputs
    }
    return BuildReport(
        plan.name,
        tuple(rows),
        summary,
        len(plan.weights),
        sum(len(code.data) for code in plan.variants[0].code_objects),
        profile.arena_bytes,
        profile.arena_lower_bound_bytes,
        sum(roots.values()),
        profile.canary.latency_us if profile.canary else None,
        dict(accuracy),
        precision=first.draft.precision.notes(),
    )
