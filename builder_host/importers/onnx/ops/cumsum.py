"""CumSum along a known axis, as a product with a triangular matrix of ones."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor


@operator("CumSum", since=(11, 14))
def cumsum(node: Node) -> Tensor:
    """Optionally from the end, optionally without the element itself."""
    x = node.input(0)
    stated = node.constant_ints(1, "axis")
    if len(stated) != 1:
        node.fail(f"axis must be one number, got {stated}")
    axis = node.axis(stated[0], x.type.rank)
    extent = x.shape[axis]
    if not extent:
        return x
    node.check_size((extent, extent))
    diagonal = 1 if node.attr_int("exclusive", 0) else 0
    upper = np.triu(np.ones((extent, extent)), diagonal)  # upper[i, j]: x[i] counts in y[j]
    matrix = node.const(upper.T if node.attr_int("reverse", 0) else upper, x.dtype)
    order = [*(i for i in range(x.type.rank) if i != axis), axis]
    moved = node.transpose(x, order)
    rows = node.reshape(moved, (x.type.num_elems // extent, extent))
    sums = node.add("matrix_multiply", MatrixMultiplyParams(), rows, matrix)
    return node.transpose(node.reshape(sums, moved.shape), [int(i) for i in np.argsort(order)])
