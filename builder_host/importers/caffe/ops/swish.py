"""Swish: x * sigmoid(beta * x)."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("Swish",)


def convert(layer: CaffeLayer) -> None:
    """One activation."""
    layer.emit(
        "activation", ActivationParams("swish", layer.message.swish_param.beta), [layer.bottom]
    )
