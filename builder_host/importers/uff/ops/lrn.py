"""LRN: TensorFlow's, where alpha counts for each channel and is not divided by their number."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.windows import CHANNELS_FIRST
from builder_host.network.layers.lrn import LrnParams

OPERATIONS = ("LRN",)


def convert(view: NodeView) -> Value:
    """Divide: y = x / (k + alpha * sum over window_size channels of x^2)^beta."""
    view.require_inputs(1)
    order = view.order(0, CHANNELS_FIRST)
    size = view.integer("window_size")
    alpha = view.number("alpha") * size
    params = LrnParams(size, alpha, view.number("beta"), view.number("k"))
    return Value(view.add("lrn", params, [view.ordered(0, order)]), order)
