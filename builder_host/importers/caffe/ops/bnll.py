"""BNLL: ln(1 + exp(x))."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("BNLL",)


def convert(layer: CaffeLayer) -> None:
    """A softplus."""
    layer.emit("activation", ActivationParams("softplus", 1.0, 1.0), [layer.bottom])
