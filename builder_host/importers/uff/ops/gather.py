"""Gather and GatherV2: rows of the data along one axis."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.network.layers.gather import GatherParams

OPERATIONS = ("Gather", "GatherV2")


def convert(view: NodeView) -> Value:
    """The axis is a field or, in GatherV2, a third input; 0 where neither is there."""
    view.require_inputs(2, 3)
    if len(view.values) == 3:
        (stated,) = view.integer_list(2, "the axis")
    else:
        stated = view.integer("axis", 0)
    data, indices = view.plain(0), view.plain(1)
    axis = view.axis(stated, len(data.shape))
    return plain_value(view.add("gather", GatherParams(axis), [data, indices]))
