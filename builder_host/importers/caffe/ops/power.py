"""Power: (shift + scale * x) ^ power."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Expr, Input
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.pointwise import PointwiseParams

TYPES = ("Power",)


def affine(scale: float, shift: float) -> Expr:
    """Scale * x + shift without factors of one and terms of zero."""
    value: Expr = Input(0)
    if scale != 1.0:
        value = Binary("mul", value, Const(scale))
    if shift != 0.0:
        value = Binary("add", value, Const(shift))
    return value


def convert(layer: CaffeLayer) -> None:
    """As one expression; whole powers up to 3 are products, so that negative bases work."""
    param = layer.message.power_param
    base = affine(param.scale, param.shift)
    match param.power:
        case 1.0:
            value = base
        case 2.0:
            value = Binary("mul", base, base)
        case 3.0:
            value = Binary("mul", Binary("mul", base, base), base)
        case exponent:
            value = Binary("pow", base, Const(exponent))
    layer.emit("pointwise", PointwiseParams(value), [layer.bottom])
