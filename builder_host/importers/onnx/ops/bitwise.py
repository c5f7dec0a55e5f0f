"""Operators on the bits of integers."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

_OPS = {"BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor"}


@operator(*_OPS, since=(18,))
def bitwise(node: Node) -> Tensor:
    """Bit by bit, with broadcasting."""
    return node.binary(_OPS[node.op_type], node.input(0), node.input(1))


@operator("BitwiseNot", since=(18,))
def bitwise_not(node: Node) -> Tensor:
    """All bits inverted: exclusive or with -1, cut to the element type."""
    return node.pointwise(Binary("bit_xor", Input(0), Const(-1.0)), node.input(0))


@operator("BitShift", since=(11, 28))
def bit_shift(node: Node) -> Tensor:
    """Signed values keep their sign to the right; a count that is no place shifts all out."""
    direction = node.choice("direction", "", ("LEFT", "RIGHT"))
    x, count = node.input(0), node.input(1)
    if direction == "LEFT":
        return node.binary("shift_left", x, count)
    if x.dtype is not DataType.UINT64:
        return node.binary("shift_right", x, count)
    # Integers are computed as int64: the copies of bit 63 that came in are masked out.
    moved = Binary("shift_right", Input(0), Input(1))
    places = Binary("shift_left", Const(-1.0), Binary("sub", Const(64.0), Input(1)))
    kept = Binary("bit_and", moved, Binary("bit_xor", places, Const(-1.0)))
    legal = Binary("and", Binary("ge", Input(1), Const(0.0)), Binary("lt", Input(1), Const(64.0)))
    return node.pointwise(Select(legal, kept, Const(0.0)), x, count)
