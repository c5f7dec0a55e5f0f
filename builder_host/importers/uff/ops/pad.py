"""Pad: zeros before and after each axis of the file's tensor."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.pad import PadParams

OPERATIONS = ("Pad",)


def convert(view: NodeView) -> Value:
    """The second input is [rank, 2]: before and after."""
    view.require_inputs(2)
    value = view.values[0]
    pads = view.array(1, "the padding")
    if pads.shape != (value.rank, 2):
        raise NodeProblem(f"padding has shape {pads.shape}, must be ({value.rank}, 2)")
    before, after = [0] * value.rank, [0] * value.rank
    for axis, (low, high) in enumerate(pads.tolist()):
        before[value.axes[axis]], after[value.axes[axis]] = int(low), int(high)
    params = PadParams(tuple(before), tuple(after))
    return Value(view.add("pad", params, [value.tensor]), value.axes)
