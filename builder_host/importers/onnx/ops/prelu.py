"""PRelu: a slope tensor for negative elements."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.network import Tensor


@operator("PRelu", since=(7, 9, 16))
def prelu(node: Node) -> Tensor:
    """The slope broadcasts to x."""
    return node.add("parametric_relu", ParametricReluParams(), node.input(0), node.input(1))
