"""Flatten the axes `axis` .. `end_axis` into one."""

from __future__ import annotations

import math

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem

TYPES = ("Flatten",)


def convert(layer: CaffeLayer) -> None:
    """A reshape, or nothing when the shape stays."""
    param = layer.message.flatten_param
    bottom = layer.bottom
    first = layer.axis(param.axis, bottom)
    last = layer.axis(param.end_axis, bottom, what="end_axis")
    if last < first:
        raise LayerProblem(f"end_axis {param.end_axis} lies before axis {param.axis}")
    shape = bottom.shape
    layer.emit_reshape(
        bottom, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    )
