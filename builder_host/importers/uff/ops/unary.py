"""Unary: a function of each element."""

from __future__ import annotations

from builder_host.expressions import Binary, Input
from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.unary import UnaryParams

OPERATIONS = ("Unary",)
_FUNCS = (
    *("neg", "exp", "log", "abs", "sqrt", "rsqrt", "sin", "cos", "tan", "sinh", "cosh"),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "ceil", "floor"),
)


def convert(view: NodeView) -> Value:
    """Dimensions stay where they are."""
    view.require_inputs(1)
    (value,) = view.values
    func = view.text("func")
    if func == "square":
        params = PointwiseParams(Binary("mul", Input(0), Input(0)))
        return Value(view.add("pointwise", params, [value.tensor]), value.axes)
    if func not in _FUNCS:
        raise NodeProblem(f"func is '{func}', must be one of square, {', '.join(_FUNCS)}")
    return Value(view.add("unary", UnaryParams(func), [value.tensor]), value.axes)
