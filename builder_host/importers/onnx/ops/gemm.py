"""Gemm: alpha * A' * B' + beta * C."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor


@operator("Gemm", since=(1, 6, 7, 9, 11, 13))
def gemm(node: Node) -> Tensor:
    """Fully connected when B is constant; else a product, a scale and a sum."""
    node.skip_attrs("broadcast")  # up to version 6; numpy rules include it
    a, b, c = node.input(0), node.input(1), node.optional(2)
    alpha, beta = node.attr_float("alpha", 1.0), node.attr_float("beta", 1.0)
    transpose_a, transpose_b = bool(node.attr_int("transA", 0)), bool(node.attr_int("transB", 0))
    if a.type.rank != 2 or b.type.rank != 2:
        node.fail(f"A and B must be matrices, got {a.type} and {b.type}")
    if b.values is None or not a.dtype.is_float:
        y = node.add("matrix_multiply", MatrixMultiplyParams(transpose_a, transpose_b), a, b)
        y = y if alpha == 1.0 else node.binary("mul", y, alpha)
        return y if c is None else node.binary("add", y, _scaled(node, c, beta))
    a = node.transpose(a, (1, 0)) if transpose_a else a
    w = _scaled(node, b if transpose_b else node.transpose(b, (1, 0)), alpha)
    outputs = w.shape[0]
    if c is None or beta == 0.0:
        return node.add("fully_connected", FullyConnectedParams(), a, w)
    c = _scaled(node, c, beta)
    if c.values is not None and c.shape in ((), (1,), (1, 1), (outputs,), (1, outputs)):
        bias = node.const(np.broadcast_to(c.values.reshape(-1), (outputs,)))
        return node.add("fully_connected", FullyConnectedParams(), a, w, bias)
    return node.binary("add", node.add("fully_connected", FullyConnectedParams(), a, w), c)


def _scaled(node: Node, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else node.binary("mul", x, factor)
