"""Transpose."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Transpose", since=(1, 13, 21, 23, 24, 25))
def transpose(node: Node) -> Tensor:
    """Without `perm` the dimensions are reversed."""
    x = node.input(0)
    permutation = node.attr_ints("perm")
    if permutation is None:
        permutation = tuple(reversed(range(x.type.rank)))
    order = [node.axis(p, x.type.rank, "perm") for p in permutation]
    if sorted(order) != list(range(x.type.rank)):
        node.fail(f"attribute 'perm' is {permutation}, no permutation of {x.type.rank} dimensions")
    return node.transpose(x, order)
