"""MatMul: numpy.matmul."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor


@operator("MatMul", since=(1, 9, 13))
def matmul(node: Node) -> Tensor:
    """Vectors become matrices and back; a constant right matrix makes it fully connected."""
    a, b = node.input(0), node.input(1)
    if not a.type.rank or not b.type.rank:
        node.fail(f"scalars cannot be multiplied as matrices, got {a.type} and {b.type}")
    left, right = a, b
    if a.type.rank == 1:
        left = node.reshape(a, (1, *a.shape))
    if b.type.rank == 1:
        right = node.reshape(b, (*b.shape, 1))
    if left.type.rank == right.type.rank == 2 and right.values is not None and a.dtype.is_float:
        weights = node.transpose(right, (1, 0))
        y = node.add("fully_connected", FullyConnectedParams(), left, weights)
    else:
        y = node.add("matrix_multiply", MatrixMultiplyParams(), left, right)
    shape = list(y.shape)
    if b.type.rank == 1:
        del shape[-1]
    if a.type.rank == 1:
        del shape[-2 if b.type.rank > 1 else -1]
    return node.reshape(y, shape)
