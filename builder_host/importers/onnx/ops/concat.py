"""Concat along one axis."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.network import Tensor


@operator("Concat", since=(1, 4, 11, 13))
def concat(node: Node) -> Tensor:
    """A single input is an alias."""
    inputs = node.required()
    default = 1 if node.version == 1 else 0  # stated from version 4 on
    axis = node.axis(node.attr_int("axis", default), inputs[0].type.rank)
    if len(inputs) == 1:
        return inputs[0]
    return node.add("concatenation", ConcatenationParams(axis), *inputs)
