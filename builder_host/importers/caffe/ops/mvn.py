"""MVN: each channel, or each image, to mean 0 and variance 1."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Input, Unary
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reduce import ReduceParams

TYPES = ("MVN",)


def convert(layer: CaffeLayer) -> None:
    """(x - mean) / (sqrt(variance) + eps); eps is outside of the root."""
    param = layer.message.mvn_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    axes = (1, 2, 3) if param.across_channels else (2, 3)
    mean = layer.add("reduce", ReduceParams("mean", axes), [bottom], "mean")
    subtract = ElementwiseParams("sub")
    if not param.normalize_variance:
        layer.emit("elementwise", subtract, [bottom, mean])
        return
    centred = layer.add("elementwise", subtract, [bottom, mean], "centred")
    square = layer.add("elementwise", ElementwiseParams("mul"), [centred, centred], "square")
    variance = layer.add("reduce", ReduceParams("mean", axes), [square], "variance")
    deviation = Binary("add", Unary("sqrt", Input(1)), Const(param.eps))
    layer.emit(
        "pointwise", PointwiseParams(Binary("div", Input(0), deviation)), [centred, variance]
    )
