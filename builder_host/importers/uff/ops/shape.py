"""Shape: known when the model is imported; the batch is part of it."""

from __future__ import annotations

import numpy as np

from builder_host.importers.uff.node import NodeView, Value, plain_value

OPERATIONS = ("Shape",)


def convert(view: NodeView) -> Value:
    """An INT32 constant."""
    view.require_inputs(1)
    return plain_value(view.constant(np.asarray(view.values[0].shape, np.int32), "shape"))
