"""TopK: k as attribute (version 1) or as input (10 and later)."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.top_k import TopKParams
from builder_host.network.network import Tensor


@operator("TopK", since=(1, 10, 11, 24))
def top_k(node: Node) -> list[Tensor]:
    """Values and INT64 positions."""
    x = node.input(0)
    if node.version < 10:
        k: tuple[int, ...] = (node.attr_int("k", 0),)
    else:
        k = node.constant_ints(1, "k")
    if len(k) != 1:
        node.fail(f"k must be one number, got {k}")
    params = TopKParams(
        k[0],
        node.axis(node.attr_int("axis", -1), x.type.rank),
        bool(node.attr_int("largest", 1)),
        bool(node.attr_int("sorted", 1)),
    )
    return node.add_outputs("top_k", params, [x])
