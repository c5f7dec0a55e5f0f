"""ReLU, with a negative slope when stated; ReLU6 of forks."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("ReLU", "ReLU6")


def convert(layer: CaffeLayer) -> None:
    """max(x, 0) + negative_slope * min(x, 0)."""
    slope = layer.message.relu_param.negative_slope
    if layer.message.type == "ReLU6":
        params = ActivationParams("clip", 0.0, layer.message.relu6_param.threshold)
    elif slope:
        params = ActivationParams("leaky_relu", slope)
    else:
        params = ActivationParams("relu")
    layer.emit("activation", params, [layer.bottom])
