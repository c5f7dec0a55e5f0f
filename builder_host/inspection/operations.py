"""A profile as rows: what each operation computes, moves and costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from planformat.details import OperationDetails, PlanDetails, plan_details
from planformat.errors import PlanError, PlanFormatError
from planformat.plan import ArgumentKind, Plan, Profile, Step


@dataclass(frozen=True, slots=True)
class OperationRow:
    """An operation with the figures of its steps.

    Attributes:
        details: as the plan tells.
        steps: its launches.
        tactic: kernel family and parameters.
        time_us: sum over its steps, None when one has neither a measured nor a predicted time.
        is_measured: whether all of the times were measured.
        moved_bytes: inputs and outputs, each once; weight_bytes: those of them that are constant,
            before packing.
    """

    details: OperationDetails
    steps: tuple[Step, ...]
    tactic: str
    time_us: float | None
    is_measured: bool
    moved_bytes: int
    weight_bytes: int

    @property
    def element_type(self) -> str:
        """Element type of the first output, e.g. `f16`."""
        return self.details.outputs[0].layout.split(":")[1].split("@")[0]

    @property
    def format(self) -> str:
        """Memory format of the first output, e.g. `NHWC`."""
        return self.details.outputs[0].layout.split(":")[2].split("@")[0]

    @property
    def giga_operations_per_second(self) -> float | None:
        """Achieved rate; None without a time."""
        if not self.time_us:
            return None
        return self.details.num_operations / self.time_us / 1e3

    @property
    def intensity(self) -> float:
        """Operations per byte moved."""
        return self.details.num_operations / max(self.moved_bytes, 1)


def required_details(plan: Plan, source: str) -> PlanDetails:
    """The plan's details.

    Raises:
        PlanError: it has none, or an operation without a result; says what to do.
    """
    details = plan_details(plan, source=source)
    if details is None:
        raise PlanError(
            f"plan {source}: carries no details (format before 1.1, or stripped); build it again "
            "to look into it"
        )
    for operation in (o for v in details.variants for p in v for o in p.operations):
        if not operation.outputs or operation.outputs[0].layout.count(":") < 2:
            raise PlanFormatError(
                f"plan {source}: section 'details': operation '{operation.name}' has no result "
                "with a layout such as 1x8x4x4:f32:LINEAR; build the plan again"
            )
    return details


def operation_rows(
    profile: Profile, operations: tuple[OperationDetails, ...]
) -> list[OperationRow]:
    """One row per operation of a profile, in order."""
    rows = []
    for operation in operations:
        steps = tuple(profile.steps[index] for index in operation.steps)
        times = [_time(step) for step in steps]
        tensors = (*operation.inputs, *operation.outputs)
        rows.append(
            OperationRow(
                operation,
                steps,
                steps[0].tactic if steps else "",
                None if None in times else sum(time for time in times if time is not None),
                all(step.measured_us is not None for step in steps),
                sum(tensor.num_bytes for tensor in tensors),
                sum(tensor.num_bytes for tensor in tensors if tensor.is_constant),
            )
        )
    return rows


def packed_bytes(plan: Plan, profile: Profile, rows: Sequence[OperationRow]) -> list[int]:
    """Bytes of the weights region that each operation of a profile reads, alignment included.

    A constant ends where the next one begins; one that several operations share counts for each.
    """
    starts = {
        argument.value
        for variant in plan.variants
        for one in variant.profiles
        for step in one.steps
        for argument in step.arguments
        if argument.kind is ArgumentKind.WEIGHTS
    }
    edges = [*sorted(starts), sum(plan.chunk_lengths)]
    size_at = {begin: end - begin for begin, end in itertools.pairwise(edges)}
    return [
        sum(
            size_at[offset]
            for offset in {
                argument.value
                for index in row.details.steps
                for argument in profile.steps[index].arguments
                if argument.kind is ArgumentKind.WEIGHTS
            }
        )
        for row in rows
    ]


def _time(step: Step) -> float | None:
    return step.measured_us if step.measured_us is not None else step.predicted_us
