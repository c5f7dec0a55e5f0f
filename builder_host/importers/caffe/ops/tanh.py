"""TanH: hyperbolic tangent."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("TanH",)


def convert(layer: CaffeLayer) -> None:
    """One activation."""
    layer.emit("activation", ActivationParams("tanh"), [layer.bottom])
