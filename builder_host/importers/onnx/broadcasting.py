"""Broadcasting of two operands as it was stated before opset 7."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.network.network import Tensor


def broadcast_operands(node: Node) -> tuple[Tensor, Tensor]:
    """Inputs 0 and 1, ready for numpy broadcasting.

    Up to opset 6 attribute `broadcast` allows it, and `axis` tells where the second operand's
    dimensions lie in the first.
    """
    a, b = node.input(0), node.input(1)
    if node.version >= 7:
        return a, b
    allowed, axis = node.attr_int("broadcast", 0), node.attr_int("axis", a.type.rank - b.type.rank)
    if not allowed:
        if a.shape != b.shape:
            node.fail(f"without broadcast the shapes must agree, got {a.type} and {b.type}")
        return a, b
    first = node.axis(axis, a.type.rank) if a.type.rank and b.type.rank else 0
    trailing = a.type.rank - first - b.type.rank
    if trailing < 0:
        node.fail(f"{b.type} does not fit into {a.type} from axis {first}")
    return a, node.reshape(b, (*b.shape, *(1,) * trailing))
