"""CumSum and CumProd along a known axis."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.cumulative import CumulativeParams
from builder_host.network.network import Tensor


@operator("CumSum", since=(11, 14))
def cumsum(node: Node) -> Tensor:
    """Optionally from the end, optionally without the element itself."""
    return _cumulative(node, "sum")


@operator("CumProd", since=(26,))
def cumprod(node: Node) -> Tensor:
    """As CumSum, with products."""
    return _cumulative(node, "product")


def _cumulative(node: Node, op: str) -> Tensor:
    x = node.input(0)
    stated = node.constant_ints(1, "axis")
    if len(stated) != 1:
        node.fail(f"axis must be one number, got {stated}")
    params = CumulativeParams(
        "sum" if op == "sum" else "product",
        node.axis(stated[0], x.type.rank),
        exclusive=bool(node.attr_int("exclusive", 0)),
        reverse=bool(node.attr_int("reverse", 0)),
    )
    return node.add("cumulative", params, x)
