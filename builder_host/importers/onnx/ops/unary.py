"""One-operand functions of the unary layer."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Expr, Input, Unary
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

_OPS = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "recip",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
}


@operator(*_OPS, since=(1, 6, 7, 9, 11, 13, 20, 22))
def unary(node: Node) -> Tensor:
    """One unary layer; Round goes half to even."""
    return node.unary(_OPS[node.op_type], node.input(0))


@operator("IsInf", since=(10, 20))
def is_infinite(node: Node) -> Tensor:
    """Infinities of the wanted signs."""
    negative = bool(node.attr_int("detect_negative", 1))
    positive = bool(node.attr_int("detect_positive", 1))
    x = Input(0)
    if negative and positive:
        return node.unary("isinf", node.input(0))
    side = Binary("gt" if positive else "lt", x, Const(0.0))
    found: Expr = Binary("and", Unary("isinf", x), side)
    expr = found if negative or positive else Const(0.0)
    return node.pointwise(expr, node.input(0), dtype=DataType.BOOL)
