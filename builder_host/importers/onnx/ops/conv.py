"""Convolution."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import add_convolution
from builder_host.network.network import Tensor


@operator("Conv", since=(1, 11, 22))
def conv(node: Node) -> Tensor:
    """Any spatial rank, groups, optional bias."""
    x, w, b = node.input(0), node.input(1), node.optional(2)
    return add_convolution(node, [x, w, *([] if b is None else [b])], w.shape[2:])
