"""What a plan fused by the times of its build, told to the pass that decides about it."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.kernels.family import Problem
from builder_host.lowering.draft import Draft
from planformat.details import OperationDetails

_APART_US, _FUSED_US, _NEVER_US = 1.0, 1e-3, 1e9


def is_recorded(draft: Draft, rows: Sequence[OperationDetails]) -> bool:
    """Whether a draft has the operations that a plan tells of."""
    own = [(operation.name, operation.problem.kind) for operation in draft.operations]
    return own == [(row.name, row.kind) for row in rows]


def recorded_times(
    contested: Sequence[Problem], rows: Sequence[OperationDetails]
) -> dict[str, float]:
    """Microseconds by which pairs are fused where the plan has them fused, by `Problem.text()`.

    Args:
        contested: of a draft: for each pair the fused problem and its two parts.
        rows: operations of the plan.
    """
    fused = {(row.kind, row.params, tuple(t.layout for t in row.inputs)) for row in rows}
    times: dict[str, float] = {}
    for whole, *parts in (contested[i : i + 3] for i in range(0, len(contested), 3)):
        key = whole.kind, repr(whole.params), tuple(layout.text() for layout in whole.inputs)
        times[whole.text()] = _FUSED_US if key in fused else _NEVER_US
        times.update((part.text(), _APART_US) for part in parts)
    return times
