"""Softmax over the channels, or over a stated axis that is counted without the batch."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.orders import INCREMENT
from builder_host.network.layers.softmax import SoftmaxParams

OPERATIONS = ("Softmax",)
_PLAIN: tuple[int, ...] = (0, 1, INCREMENT)


def convert(view: NodeView) -> Value:
    """`axis` 0 is the first one behind the batch in canonical order.

    Without it: the channels where the file states an order, else the last axis, as TensorFlow.
    """
    view.require_inputs(1)
    (value,) = view.values
    order = view.order(0, _PLAIN)
    if view.has("axis"):
        axis = view.integer("axis")
        canonical = view.axis(axis + 1 if axis >= 0 else axis, value.rank)
        dim = value.axes[order.index(canonical)]
    elif view.has("inputs_orders") and value.rank > 1:
        dim = value.axes[order.index(1)]
    else:
        dim = value.axes[-1]
    return Value(view.add("softmax", SoftmaxParams(dim), [value.tensor]), value.axes)
