"""Two-operand arithmetic with numpy broadcasting."""

from __future__ import annotations

from builder_host.expressions import Binary, Input
from builder_host.importers.onnx.broadcasting import broadcast_operands
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

_OPS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}


@operator(*_OPS, since=(1, 6, 7, 13, 14))
def arithmetic(node: Node) -> Tensor:
    """Division of integers truncates."""
    return node.binary(_OPS[node.op_type], *broadcast_operands(node))


@operator("Pow", since=(1, 7, 12, 13, 15))
def power(node: Node) -> Tensor:
    """The result has the type of the base; a square needs no power."""
    base, exponent = broadcast_operands(node)
    single = exponent.type.num_elems == 1 and exponent.type.rank <= base.type.rank
    if exponent.values is not None and single:
        value = float(exponent.values.item())
        if value == 1.0:
            return base
        if value == 2.0:
            return node.binary("mul", base, base)
        if value == 0.5 and base.dtype.is_float:
            return node.unary("sqrt", base)
    if base.dtype is exponent.dtype:
        return node.binary("pow", base, exponent)
    if exponent.dtype.is_float and not base.dtype.is_float:
        raised = node.binary("pow", node.cast(base, exponent.dtype), exponent)
        return node.cast(raised, base.dtype)
    return node.binary("pow", base, node.cast(exponent, base.dtype))


@operator("Mod", since=(10, 13, 28))
def modulo(node: Node) -> Tensor:
    """Sign of the divisor, or of the dividend with fmod."""
    op = "fmod" if node.attr_int("fmod", 0) else "mod"
    return node.pointwise(Binary(op, Input(0), Input(1)), node.input(0), node.input(1))
