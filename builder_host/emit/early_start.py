"""Steps that need not wait for the step ahead of them: their inputs are older than that.

With programmatic dependent launch a kernel starts while the one ahead of it still runs. One whose
inputs were complete before that one began (the second branch of a fork) can read and compute right
away and wait before its first write; the two then run side by side. Outputs may lie anywhere, as
nothing is written before the wait, so memory is planned as if the steps followed each other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from builder_host.emit.tuned import TunedOperation
from builder_host.kernels.family import GridLaunch, Program
from builder_host.network.network import Tensor

log = logging.getLogger(__name__)

_CAN_START_EARLY = "ep_grid_wait_to_store();"
_DEFINITION = "#define EP_STARTS_EARLY 1\n"
_SUFFIX = "_early"


def start_early(operations: Sequence[TunedOperation]) -> list[TunedOperation]:
    """The operations, with the programs of those that can start early changed to do so.

    A step whose kernel waits first and then lets the next one start vouches for everything before
    itself; a step that starts early lets the next one start without having waited, so that the next
    one knows no more than itself. Only programs of one launch start early.
    """
    found: list[TunedOperation] = []
    written_at: dict[Tensor, int] = {}  # number of the last launch that wrote into a buffer
    complete = -1  # launches up to this one are complete when the next one starts
    number = 0
    for item in operations:
        # Operands of the epilogue are read behind the wait.
        own = item.operation.inputs[: item.operation.problem.num_own_inputs]
        roots = [view.root for view in own if view is not None]
        newest = max((written_at.get(root, -1) for root in roots), default=-1)
        is_early = newest <= complete and number > 0 and _can_start_early(item.program)
        if is_early:
            log.debug("step '%s' starts beside the one ahead of it", item.operation.name)
            item = replace(item, program=_early(item.program))
        found.append(item)
        number += len(item.program.launches)
        for view in item.operation.outputs:
            written_at[view.root] = number - 1
        if not is_early:
            complete = number - 2
    return found


def _can_start_early(program: Program) -> bool:
    if len(program.launches) != 1 or _CAN_START_EARLY not in program.source:
        return False
    launch = program.launches[0]
    return isinstance(launch, GridLaunch) and launch.is_dependent


def _early(program: Program) -> Program:
    launch = program.launches[0]
    symbol = launch.symbol + _SUFFIX
    source = _DEFINITION + program.source.replace(launch.symbol, symbol)
    return replace(program, source=source, launches=(replace(launch, symbol=symbol),))
