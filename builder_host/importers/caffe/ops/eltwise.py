"""Eltwise: sum with coefficients, product, maximum of any number of bottoms."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Expr, Input
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.pointwise import PointwiseParams

TYPES = ("Eltwise",)
_OPS = {"PROD": "mul", "SUM": "add", "MAX": "max", "MIN": "min"}


def convert(layer: CaffeLayer) -> None:
    """Two plain bottoms become one elementwise layer, all else one expression."""
    param = layer.message.eltwise_param
    bottoms = layer.bottoms
    layer.require_bottoms(2, max(2, len(bottoms)))
    for other in bottoms[1:]:
        if other.shape != bottoms[0].shape:
            raise LayerProblem(
                f"bottoms {shape_text(bottoms[0])} and {shape_text(other)} differ in shape"
            )
    name = param.EltwiseOp.Name(param.operation)
    coefficients = list(param.coeff)
    if coefficients and name != "SUM":
        raise LayerProblem(f"coeff belongs to SUM, the operation is {name}")
    if coefficients and len(coefficients) != len(bottoms):
        raise LayerProblem(f"{len(coefficients)} coeff for {len(bottoms)} bottoms")
    if len(bottoms) == 2 and all(c == 1.0 for c in coefficients):
        layer.emit("elementwise", ElementwiseParams(_OPS[name]), bottoms)
        return
    coefficients = coefficients or [1.0] * len(bottoms)
    value = _term(0, coefficients[0])
    for index in range(1, len(bottoms)):
        value = Binary(_OPS[name], value, _term(index, coefficients[index]))
    layer.emit("pointwise", PointwiseParams(value), bottoms)


def _term(index: int, coefficient: float) -> Expr:
    return Input(index) if coefficient == 1.0 else Binary("mul", Input(index), Const(coefficient))
