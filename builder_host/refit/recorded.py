"""The operations of a plan again, from the model and the tactics that the plan states.

Nothing is timed and nothing compiled: each operation has to be the one that the plan tells of, and
its source has to be the one that the plan's code was compiled from. So whatever a model's values
decide beside the weights region (a scale compiled into an epilogue, a folded constant, a layer that
vanished) is found here, and named by its layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder_host.emit.early_start import start_early
from builder_host.emit.step_details import operation_details
from builder_host.emit.tuned import TunedOperation, TunedProfile
from builder_host.errors import RefitError
from builder_host.expressions import text as expression_text
from builder_host.kernels.family import KernelFamily, Tactic
from builder_host.lowering.draft import Draft
from builder_host.lowering.placement import Operation
from builder_host.targets.backend import KernelTarget
from builder_host.tune.select import Candidate, Selection
from builder_host.tune.timing_cache import TimingKey
from planformat.details import OperationDetails, ProfileDetails, TensorDetails
from planformat.plan import Profile

_NOT_TIMED = TimingKey("", "", "", "", "", "")


def recorded_operations(
    draft: Draft, profile: Profile, details: ProfileDetails, target: KernelTarget
) -> TunedProfile:
    """The draft's operations with the tactics of a plan's profile.

    Args:
        draft: of the model whose weights shall go in.
        profile: of the plan.
        details: what the plan tells of the profile.
        target: that the plan is for.

    Raises:
        RefitError: names the first operation that differs, and how.
    """
    families = {family.name: family for family in target.families}
    rows = details.operations
    for number, (operation, row) in enumerate(zip(draft.operations, rows, strict=False)):
        if (operation.name, operation.problem.kind) != (row.name, row.kind):
            raise RefitError(
                f"profile '{profile.name}', operation {number}: the plan computes '{row.name}' "
                f"({row.kind}), the model gives '{operation.name}' ({operation.problem.kind}): "
                "another architecture, or values that decide about layers; build the plan again"
            )
    if len(draft.operations) != len(rows):
        raise RefitError(
            f"profile '{profile.name}': the plan has {len(rows)} operations, the model gives "
            f"{len(draft.operations)}; build the plan again"
        )
    items = [
        _item(operation, row, profile, families, target.target)
        for operation, row in zip(draft.operations, rows, strict=True)
    ]
    items = start_early(items)
    for item, row in zip(items, rows, strict=True):
        _check_same(operation_details(item, row.steps, draft), row)
    return TunedProfile(draft, tuple(items))


def _item(
    operation: Operation,
    row: OperationDetails,
    profile: Profile,
    families: Mapping[str, KernelFamily],
    target: Any,
) -> TunedOperation:
    problem = operation.problem
    _check_equal(row.name, "parameters", row.params, repr(problem.params))
    epilogue = expression_text(problem.epilogue.expr) if problem.epilogue else ""
    _check_equal(row.name, "epilogue", row.epilogue, epilogue)
    text = profile.steps[row.steps[0]].tactic if row.steps else ""
    family = families.get(text.partition("(")[0])
    tactic = _tactic(family, operation, text, target) if family is not None else None
    if family is None or tactic is None:
        raise RefitError(
            f"layer '{operation.name}': this version of edgeplan does not offer the plan's tactic "
            f"'{text}' for it; refit with the version that built the plan, or build it again"
        )
    candidate = Candidate(problem, family, tactic, 0.0, _NOT_TIMED)
    selection = Selection(candidate, None, row.num_candidates)
    return TunedOperation(operation, selection, candidate.program(target))


def _tactic(family: KernelFamily, operation: Operation, text: str, target: Any) -> Tactic | None:
    problem = operation.problem
    if not family.applies(problem, target):
        return None
    return next((t for t in family.tactics(problem, target) if t.text == text), None)


def _check_same(found: OperationDetails, row: OperationDetails) -> None:
    """Compare layouts and sources."""
    _check_equal(row.name, "inputs", _tensors(row.inputs), _tensors(found.inputs))
    _check_equal(row.name, "outputs", _tensors(row.outputs), _tensors(found.outputs))
    if found.source_sha256 != row.source_sha256:
        raise RefitError(
            f"layer '{row.name}': its source is not the one that the plan's code was compiled "
            "from: a value of the model is compiled into it, or this is another version of "
            "edgeplan; build the plan again"
        )


def _check_equal(layer: str, what: str, planned: str, given: str) -> None:
    if planned != given:
        raise RefitError(
            f"layer '{layer}': {what} in the plan: {_shortened(planned, given)}, in the model: "
            f"{_shortened(given, planned)}; the plan's code was made for the first, values like "
            "these are compiled into it: build the plan again"
        )


def _tensors(tensors: Sequence[TensorDetails]) -> str:
    """Layouts, and names where they are of buffers: those of constants tell nothing."""
    return "; ".join(
        f"{'constant' if t.is_constant else t.name} {t.layout}"
        + (f" in steps of {t.scale!r}" if t.scale else "")
        for t in tensors
    )


def _shortened(text: str, other: str) -> str:
    """A text around the first place where it differs from the other."""
    at = next(
        (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b),
        min(len(text), len(other)),
    )
    begin = max(0, at - 40)
    return f"'{'…' if begin else ''}{text[begin : at + 60]}{'…' if at + 60 < len(text) else ''}'"
