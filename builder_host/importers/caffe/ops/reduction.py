"""Reduction of all axes from `axis` on; they are gone from the output."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Input
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reduce import ReduceParams

TYPES = ("Reduction",)
_OPS = {"SUM": "sum", "ASUM": "l1", "SUMSQ": "sum_square", "MEAN": "mean"}


def convert(layer: CaffeLayer) -> None:
    """A reduce layer, and a factor when `coeff` is not 1."""
    param = layer.message.reduction_param
    bottom = layer.bottom
    axis = layer.axis(param.axis, bottom)
    axes = tuple(range(axis, len(bottom.shape)))
    op = _OPS[param.ReductionOp.Name(param.operation)]
    params = ReduceParams(op, axes, keep_dims=False)
    if param.coeff == 1.0:
        layer.emit("reduce", params, [bottom])
        return
    made = layer.add("reduce", params, [bottom], "reduce")
    expr = Binary("mul", Input(0), Const(param.coeff))
    layer.emit("pointwise", PointwiseParams(expr), [made])
