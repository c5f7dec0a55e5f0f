"""Reshape, Flatten, Squeeze, ExpandDims: the same elements in the file's order, another shape."""

from __future__ import annotations

import math

from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.importers.uff.problem import NodeProblem

OPERATIONS = ("ExpandDims", "Flatten", "Reshape", "Squeeze")


def convert(view: NodeView) -> Value:
    """The batch is part of every shape."""
    operation = view.node.operation
    view.require_inputs(2 if operation == "Reshape" else 1)
    shape = list(view.values[0].shape)
    if operation == "Reshape":
        wanted = _reshaped(tuple(shape), view.integer_list(1, "the shape"))
    elif operation == "Flatten":
        wanted = (shape[0] if shape else 1, math.prod(shape[1:]))
    elif operation == "Squeeze":
        # Without axes every extent of 1 goes but the batch, which UFF leaves out of shapes.
        ones = tuple(i for i, d in enumerate(shape) if d == 1 and i > 0)
        stated = view.integers("axes", None, ones)
        axes = {view.axis(axis, len(shape)) for axis in stated}
        wide = [axis for axis in sorted(axes) if shape[axis] != 1]
        if wide:
            raise NodeProblem(f"axis {wide[0]} has extent {shape[wide[0]]}, only 1 can go")
        wanted = tuple(d for axis, d in enumerate(shape) if axis not in axes)
    else:
        axis = view.axis(view.integer("axis"), len(shape) + 1)
        wanted = (*shape[:axis], 1, *shape[axis:])
    return plain_value(view.reshaped(view.plain(0), wanted))


def _reshaped(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Resolve one -1; a first extent that stands for the batch of training becomes this batch.

    UFF networks have no batch of their own: where the stated shape holds one item's elements
    behind its first extent, the first extent is the batch whatever it says.
    """
    count = math.prod(shape)
    for candidate in (wanted, (shape[0] if shape else 1, *wanted[1:])):
        known = math.prod(d for d in candidate if d != -1)
        unknown = candidate.count(-1)
        if min(candidate, default=1) < -1 or unknown > 1:
            break
        if unknown and known and count % known == 0:
            return tuple(count // known if d == -1 else d for d in candidate)
        if not unknown and known == count:
            return candidate
    raise NodeProblem(f"{count} elements of {shape} do not fit the shape {wanted}")
