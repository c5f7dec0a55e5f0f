"""ArgMax and ArgMin."""

from __future__ import annotations

from typing import Literal

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.network import Tensor


@operator("ArgMax", "ArgMin", since=(1, 11, 12, 13))
def arg_reduce(node: Node) -> Tensor:
    """Position of the first, or last, extreme value."""
    x = node.input(0)
    op: Literal["max", "min"] = "max" if node.op_type == "ArgMax" else "min"
    params = ArgReduceParams(
        op,
        node.axis(node.attr_int("axis", 0), x.type.rank),
        bool(node.attr_int("keepdims", 1)),
        bool(node.attr_int("select_last_index", 0)),
    )
    return node.add("arg_reduce", params, x)
