"""Comparisons and logic; results are booleans."""

from __future__ import annotations

from builder_host.importers.onnx.broadcasting import broadcast_operands
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

_OPS = {
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
}


@operator(*_OPS, since=(1, 7, 9, 11, 12, 13, 16, 19))
def comparison(node: Node) -> Tensor:
    """One elementwise layer."""
    return node.binary(_OPS[node.op_type], *broadcast_operands(node))
