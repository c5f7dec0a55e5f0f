"""Concat along an existing axis, Stack along a new one."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.concatenation import ConcatenationParams

OPERATIONS = ("Concat", "Stack")


def convert(view: NodeView) -> Value:
    """`axis` counts in the file's tensor, the batch included."""
    if not view.values:
        raise NodeProblem("has no inputs")
    first = view.values[0]
    ranks = sorted({value.rank for value in view.values})
    if len(ranks) > 1:
        raise NodeProblem(f"its inputs have {ranks} dimensions; they must agree")
    if view.node.operation == "Stack":
        axis = view.axis(view.integer("axis", 0), first.rank + 1)
        parts = []
        for number, value in enumerate(view.values):
            shape = (*value.shape[:axis], 1, *value.shape[axis:])
            parts.append(view.reshaped(view.plain(number), shape))
        return plain_value(view.add("concatenation", ConcatenationParams(axis), parts))
    axis = view.axis(view.integer("axis"), first.rank)
    computed = [value for value in view.values if not value.tensor.is_constant]
    axes = (computed or [first])[0].axes
    parts = [view.arranged(value, axes) for value in view.values]
    return Value(view.add("concatenation", ConcatenationParams(axes[axis]), parts), axes)
