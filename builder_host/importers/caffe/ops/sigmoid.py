"""Sigmoid: 1 / (1 + exp(-x))."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.activation import ActivationParams

TYPES = ("Sigmoid",)


def convert(layer: CaffeLayer) -> None:
    """One activation."""
    layer.emit("activation", ActivationParams("sigmoid"), [layer.bottom])
