"""Exp: base ^ (shift + scale * x)."""

from __future__ import annotations

import math

from builder_host.expressions import Unary
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.ops.power import affine
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.pointwise import PointwiseParams

TYPES = ("Exp",)


def convert(layer: CaffeLayer) -> None:
    """Base -1 means e."""
    param = layer.message.exp_param
    if param.base != -1.0 and param.base <= 0.0:
        raise LayerProblem(f"base is {param.base}, must be positive, or -1 for e")
    factor = 1.0 if param.base == -1.0 else math.log(param.base)
    expr = Unary("exp", affine(param.scale * factor, param.shift * factor))
    layer.emit("pointwise", PointwiseParams(expr), [layer.bottom])
