"""Threshold: 1 above it, else 0."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.pointwise import PointwiseParams

TYPES = ("Threshold",)


def convert(layer: CaffeLayer) -> None:
    """X > threshold ? 1 : 0."""
    above = Binary("gt", Input(0), Const(layer.message.threshold_param.threshold))
    expr = Select(above, Const(1.0), Const(0.0))
    layer.emit("pointwise", PointwiseParams(expr), [layer.bottom])
