"""Trilu: the upper or lower triangle of matrices."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.select import SelectParams
from builder_host.network.network import Tensor


@operator("Trilu", since=(14,))
def trilu(node: Node) -> Tensor:
    """A select with a known mask."""
    x = node.input(0)
    if x.type.rank < 2:
        node.fail(f"matrices are needed, got {x.type}")
    offsets = node.optional_ints(1, "k") or (0,)
    node.check_size(x.shape[-2:])
    ones = np.ones(x.shape[-2:], np.bool_)
    k = max(-x.shape[-2], min(offsets[0], x.shape[-1]))
    mask = np.triu(ones, k) if node.attr_int("upper", 1) else np.tril(ones, k)
    return node.add("select", SelectParams(), node.const(mask), x, node.const(0, x.dtype))
