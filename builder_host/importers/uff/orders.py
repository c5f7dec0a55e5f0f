"""Axis orders: which axis of a file's tensor is batch, channels or space.

A file's order names, per axis of the tensor, the axis that it is in the canonical NCHW (for
kernels KCRS) tensor: NHWC is [0, 2, INCREMENT, 1]. INCREMENT stands for as many ascending axes as
the rank needs, also none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder_host.importers.uff.problem import NodeProblem

ANY_RANK = -1
INCREMENT = 0x7FFFFFFF
DECREMENT = -0x80000000

Order = tuple[int, ...]


def expanded(order: Sequence[int], rank: int) -> Order:
    """Canonical axis of each axis of a tensor of this rank. Raises NodeProblem.

    `[0, 2, INCREMENT, 1]` is `(0, 2, 3, 1)` for rank 4 and `(0, 1)` for rank 2.
    """
    runs = [i for i, axis in enumerate(order) if axis in (INCREMENT, DECREMENT)]
    if len(runs) > 1 or 0 in runs:
        raise NodeProblem(f"inputs_orders {list(order)} cannot be read; convert the model again")
    if not runs:
        found = list(order)
    else:
        at = runs[0]
        head, tail = list(order[: at - 1]), list(order[at + 1 :])
        count = rank - len(head) - len(tail)
        step = 1 if order[at] == INCREMENT else -1
        found = head + [order[at - 1] + step * i for i in range(max(count, 0))] + tail
    if sorted(found) != list(range(rank)):
        raise NodeProblem(
            f"inputs_orders {list(order)} does not fit a tensor with {rank} dimensions"
        )
    return tuple(found)


def order_for_rank(orders: Mapping[int, Sequence[int]], rank: int) -> Order:
    """The order that a file states for a rank, expanded. Raises NodeProblem."""
    stated = orders.get(rank, orders.get(ANY_RANK))
    if stated is None:
        raise NodeProblem(f"inputs_orders says nothing about tensors with {rank} dimensions")
    return expanded(stated, rank)
