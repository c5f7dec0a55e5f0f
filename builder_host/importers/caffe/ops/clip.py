"""Clip: min(max(x, low), high)."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.activation import ActivationParams

TYPES = ("Clip",)


def convert(layer: CaffeLayer) -> None:
    """One activation; both bounds must be stated."""
    param = layer.message.clip_param
    if not (param.HasField("min") and param.HasField("max")):
        raise LayerProblem("clip_param needs both min and max")
    layer.emit("activation", ActivationParams("clip", param.min, param.max), [layer.bottom])
