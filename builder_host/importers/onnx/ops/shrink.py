"""Shrink: moves values towards zero and drops small ones."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Shrink", since=(9,))
def shrink(node: Node) -> Tensor:
    """X + bias below -lambd, x - bias above lambd, else 0."""
    lambd, bias = node.attr_float("lambd", 0.5), node.attr_float("bias", 0.0)
    x = Input(0)
    above = Select(Binary("gt", x, Const(lambd)), Binary("sub", x, Const(bias)), Const(0.0))
    below = Binary("lt", x, Const(-lambd))
    return node.pointwise(Select(below, Binary("add", x, Const(bias)), above), node.input(0))
