"""Local response normalisation across channels."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.network import Tensor


@operator("LRN", since=(1, 13))
def lrn(node: Node) -> Tensor:
    """Alpha is divided by the size, as the layer does."""
    params = LrnParams(
        size=node.attr_int("size", 1),
        alpha=node.attr_float("alpha", 1e-4),
        beta=node.attr_float("beta", 0.75),
        k=node.attr_float("bias", 1.0),
    )
    return node.add("lrn", params, node.input(0))
