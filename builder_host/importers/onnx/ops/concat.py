"""Concat along one axis."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.network import Tensor


@operator("Concat", since=(4, 11, 13))
def concat(node: Node) -> Tensor:
    """A single input is an alias."""
    inputs = node.required()
    axis = node.axis(node.attr_int("axis", 0), inputs[0].type.rank)
    if len(inputs) == 1:
        return inputs[0]
    return node.add("concatenation", ConcatenationParams(axis), *inputs)
