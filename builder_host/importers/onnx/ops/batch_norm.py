"""Batch normalisation at inference: one scale and one shift per channel."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.network import Tensor


@operator("BatchNormalization", since=(1, 6, 7, 9, 14, 15))
def batch_normalization(node: Node) -> Tensor:
    """Constants are folded in float64, then rounded once to the type of x."""
    node.skip_attrs("momentum", "is_test")
    if not node.attr_int("spatial", 1):
        node.fail("attribute spatial=0 (one value per element) is not supported")
    if node.attr_int("training_mode", 0):
        node.fail("training_mode is 1; export the model for inference")
    epsilon = node.attr_float("epsilon", 1e-5)
    x = node.input(0)
    statistics = [node.input(i) for i in range(1, 5)]
    channels = x.shape[1] if x.type.rank > 1 else 1
    for tensor in statistics:
        if tensor.type.num_elems != channels:
            node.fail(f"'{tensor.name}' has shape {tensor.shape}, x has {channels} channels")
    wide = (channels, *(1,) * (x.type.rank - 2))
    values = [t.values for t in statistics]
    if any(v is None for v in values):
        gamma, beta, mean, variance = (
            node.cast(node.reshape(t, wide), x.dtype) for t in statistics
        )
        deviation = node.unary("sqrt", node.binary("add", variance, epsilon))
        factor = node.binary("div", gamma, deviation)
        centred = node.binary("sub", x, mean)
        return node.binary("add", node.binary("mul", centred, factor), beta)
    exact = [np.asarray(v, np.float64).reshape(wide) for v in values]
    with np.errstate(all="ignore"):
        scale = exact[0] / np.sqrt(exact[3] + epsilon)
        shift = exact[1] - exact[2] * scale
    params = ScaleParams(has_shift=True, has_scale=True, has_power=False)
    return node.add("scale", params, x, node.const(shift, x.dtype), node.const(scale, x.dtype))
