"""Operations and profiles with the tactics chosen for them."""

from __future__ import annotations

from dataclasses import dataclass

from builder_host.kernels.family import Program
from builder_host.lowering.draft import Draft
from builder_host.lowering.placement import Operation
from builder_host.tune.select import Selection


@dataclass(frozen=True, slots=True)
class TunedOperation:
    """An operation with the tactic chosen for it and the program that it gave."""

    operation: Operation
    selection: Selection
    program: Program


@dataclass(frozen=True, slots=True)
class TunedProfile:
    """A profile with a tactic for each of its operations, in order."""

    draft: Draft
    operations: tuple[TunedOperation, ...]
