"""BatchNorm: scale and shift per channel from the stored statistics."""

from __future__ import annotations

import numpy as np

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.windows import CHANNELS_FIRST
from builder_host.network.layers.scale import ScaleParams

OPERATIONS = ("BatchNorm",)


def convert(view: NodeView) -> Value:
    """Inputs data, gamma, beta, moving mean, moving variance."""
    view.require_inputs(5)
    value = view.values[0]
    order = view.order(0, CHANNELS_FIRST)
    if value.rank < 2:
        raise NodeProblem(f"the data has {value.rank} dimensions, must have at least 2")
    dim = value.axes[order.index(1)]
    channels = value.tensor.shape[dim]
    names = ("gamma", "beta", "moving mean", "moving variance")
    arrays = [view.array(i, name).astype(np.float64) for i, name in enumerate(names, start=1)]
    for name, array in zip(names, arrays, strict=True):
        if array.size != channels:
            raise NodeProblem(f"{name} has {array.size} values, the data {channels} channels")
    gamma, beta, mean, variance = (array.reshape(-1) for array in arrays)
    epsilon = view.number("epsilon")
    if np.any(variance + epsilon <= 0):
        raise NodeProblem(f"variance {variance.min():g} with epsilon {epsilon:g} is not positive")
    scale = gamma / np.sqrt(variance + epsilon)
    shape = [1] * value.rank
    shape[dim] = channels
    operands = [
        view.constant(a.reshape(shape).astype(np.float32), role)
        for a, role in ((beta - mean * scale, "shift"), (scale, "scale"))
    ]
    params = ScaleParams(has_shift=True, has_scale=True, has_power=False)
    return Value(view.add("scale", params, [value.tensor, *operands]), value.axes)
