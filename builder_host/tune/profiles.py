"""Tactics for several profiles of one plan: later profiles prefer weights that are packed already.

Two profiles share a constant when their kernels want it in the same order. The fastest tactics of
batch 1 and of batch 8 often differ by less than the noise of a timing and by megabytes of weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from builder_host.emit.early_start import start_early
from builder_host.emit.plan import packed_constants
from builder_host.emit.tuned import TunedOperation, TunedProfile
from builder_host.lowering.draft import Draft
from builder_host.lowering.placement import Operation
from builder_host.tune.select import Selection, Tuner

_LARGE_BYTES = 4096  # smaller constants are not worth a slower tactic


def tune_profiles(
    drafts: Sequence[Draft],
    selections: Mapping[str, Selection],
    tuner: Tuner,
    sharing_tolerance: float,
) -> list[TunedProfile]:
    """A tactic and its program for every operation of every profile.

    Args:
        drafts: the first one gets the fastest tactics, the others share its weights where that
            makes them at most `sharing_tolerance` times slower.
        selections: the fastest tactic by `Problem.text()`.
        tuner: knows the alternatives.
        sharing_tolerance: as in `BuilderConfig`.
    """
    target = tuner.backend.target
    known: set[bytes] = set()
    profiles: list[TunedProfile] = []
    for draft in drafts:
        operations = []
        for operation in draft.operations:
            item = _tuned(operation, selections[operation.problem.text()], target)
            if len(drafts) > 1:
                keys = _large_keys(item, target)
                if profiles and not keys <= known:
                    item, keys = _sharing(item, keys, tuner, known, sharing_tolerance)
                known |= keys
            operations.append(item)
        profiles.append(TunedProfile(draft, tuple(start_early(operations))))
    return profiles


def _sharing(
    best: TunedOperation, best_keys: set[bytes], tuner: Tuner, known: set[bytes], tolerance: float
) -> tuple[TunedOperation, set[bytes]]:
    """The fastest tactic whose constants are known, else the best one; with its constants."""
    target = tuner.backend.target
    for selection in tuner.alternatives(best.operation.problem, tolerance):
        item = _tuned(best.operation, selection, target)
        keys = _large_keys(item, target)
        if keys <= known:
            return item, keys
    return best, best_keys


def _tuned(operation: Operation, selection: Selection, target: Any) -> TunedOperation:
    return TunedOperation(operation, selection, selection.candidate.program(target))


def _large_keys(item: TunedOperation, target: Any) -> set[bytes]:
    arrays = [array for array in packed_constants(item, target) if array is not None]
    return {
        hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()
        for array in arrays
        if array.nbytes >= _LARGE_BYTES
    }
