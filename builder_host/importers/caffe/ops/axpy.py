"""Axpy of squeeze-and-excitation networks: a * x + y, one factor per image and channel."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.elementwise import ElementwiseParams

TYPES = ("Axpy",)


def convert(layer: CaffeLayer) -> None:
    """Bottoms a[N,C] (or [N,C,1,1]), x[N,C,H,W], y[N,C,H,W]."""
    layer.require_bottoms(3)
    factor, x, y = layer.bottoms
    per_channel = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    if x.shape != y.shape or len(x.shape) < 2 or factor.type.num_elems != x.shape[0] * x.shape[1]:
        raise LayerProblem(
            f"bottoms {shape_text(factor)}, {shape_text(x)} and {shape_text(y)} must be NxC, "
            "NxCxHxW and NxCxHxW"
        )
    factor = layer.reshaped(factor, per_channel, "factor")
    product = layer.add("elementwise", ElementwiseParams("mul"), [x, factor], "product")
    layer.emit("elementwise", ElementwiseParams("add"), [product, y])
