"""Concat along `axis`, or `concat_dim` in old files."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.concatenation import ConcatenationParams

TYPES = ("Concat",)


def convert(layer: CaffeLayer) -> None:
    """One bottom is another name of it."""
    param = layer.message.concat_param
    layer.require_bottoms(1, max(1, len(layer.bottoms)))
    if param.HasField("axis") and param.HasField("concat_dim"):
        raise LayerProblem("axis and concat_dim are both stated; keep axis")
    stated = param.concat_dim if param.HasField("concat_dim") else param.axis
    axis = layer.axis(stated, layer.bottoms[0])
    if len(layer.bottoms) == 1:
        layer.alias(layer.bottoms[0])
    else:
        layer.emit("concatenation", ConcatenationParams(axis), layer.bottoms)
