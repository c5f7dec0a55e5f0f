"""Sum, Mean, Max and Min of any number of tensors."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

_OPS = {"Sum": "add", "Mean": "add", "Max": "max", "Min": "min"}


@operator(*_OPS, since=(1, 6, 8, 12, 13))
def variadic(node: Node) -> Tensor:
    """A chain of elementwise layers, left to right."""
    first, *rest = node.required()
    result = first
    for other in rest:
        result = node.binary(_OPS[node.op_type], result, other)
    if node.op_type == "Mean" and rest:
        result = node.binary("div", result, float(len(rest) + 1))
    return result
