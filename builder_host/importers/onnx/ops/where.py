"""Where: one of two tensors by a condition."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.select import SelectParams
from builder_host.network.network import Tensor


@operator("Where", since=(9, 16))
def where(node: Node) -> Tensor:
    """Condition, then the two sides."""
    return node.add("select", SelectParams(), node.input(0), node.input(1), node.input(2))
