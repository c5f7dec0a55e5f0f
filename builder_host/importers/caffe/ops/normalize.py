"""Normalize of SSD: unit length per cell or per image, times a learned scale."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.normalize import NormalizeParams

TYPES = ("Normalize",)


def convert(layer: CaffeLayer) -> None:
    """X / sqrt(sum of x^2 + eps) * scale."""
    param = layer.message.norm_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    shape = () if param.channel_shared else (bottom.shape[1],)
    (scale,) = layer.weights([BlobSpec("scale", shape, "scale")])
    tensor = layer.constant(scale.reshape(1, -1, 1, 1), "scale")
    layer.emit("normalize", NormalizeParams(param.across_spatial, param.eps), [bottom, tensor])
