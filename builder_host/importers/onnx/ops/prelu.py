"""PRelu: a slope tensor for negative elements."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.network import Tensor


@operator("PRelu", since=(1, 6, 7, 9, 16))
def prelu(node: Node) -> Tensor:
    """The slope broadcasts to x; up to version 6 it is one value or one per channel."""
    x, slope = node.input(0), node.input(1)
    if node.version < 7:
        shape = () if slope.type.num_elems == 1 else (slope.type.num_elems,)
        slope = node.reshape(slope, (*shape, *(1,) * (x.type.rank - 2)) if shape else ())
    return node.add("parametric_relu", ParametricReluParams(), x, slope)
