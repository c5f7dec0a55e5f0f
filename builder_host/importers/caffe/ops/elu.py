"""ELU: alpha * (exp(x) - 1) for negative x."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("ELU",)


def convert(layer: CaffeLayer) -> None:
    """One activation."""
    layer.emit("activation", ActivationParams("elu", layer.message.elu_param.alpha), [layer.bottom])
