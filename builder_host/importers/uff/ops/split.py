"""Split: one of several equal parts along an axis; each part is a node of its own."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.slice import SliceParams

OPERATIONS = ("Split",)


def convert(view: NodeView) -> Value:
    """Part `index` of `count`; no converter writes it, frozen graphs are read with it."""
    view.require_inputs(1)
    (value,) = view.values
    axis = view.axis(view.integer("axis"), value.rank)
    count, index = view.integer("count"), view.integer("index")
    dim = value.axes[axis]
    extent = value.tensor.shape[dim]
    if not 0 <= index < count or extent % count:
        raise NodeProblem(f"axis {axis} of extent {extent} has no part {index} of {count}")
    if count == 1:
        return value
    starts, sizes = [0] * value.rank, list(value.tensor.shape)
    starts[dim], sizes[dim] = index * (extent // count), extent // count
    params = SliceParams(tuple(starts), tuple(sizes), (1,) * value.rank)
    return Value(view.add("slice", params, [value.tensor]), value.axes)
