"""Log: log_base(shift + scale * x)."""

from __future__ import annotations

import math

from builder_host.expressions import Binary, Const, Expr, Unary
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.ops.power import affine
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.pointwise import PointwiseParams

TYPES = ("Log",)


def convert(layer: CaffeLayer) -> None:
    """Base -1 means e."""
    param = layer.message.log_param
    if param.base != -1.0 and (param.base <= 0.0 or param.base == 1.0):
        raise LayerProblem(f"base is {param.base}, must be positive and not 1, or -1 for e")
    expr: Expr = Unary("log", affine(param.scale, param.shift))
    if param.base != -1.0:
        expr = Binary("mul", expr, Const(1.0 / math.log(param.base)))
    layer.emit("pointwise", PointwiseParams(expr), [layer.bottom])
