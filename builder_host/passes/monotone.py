"""Whether an epilogue keeps the order of values: then a maximum may be taken before it."""

from __future__ import annotations

import math

from builder_host.expressions import Binary, Const, Expr, Input, Select, Unary, inputs_of

_ROUNDINGS = frozenset({"floor", "ceil", "round", "trunc"})


def is_nondecreasing(expr: Expr) -> bool:
    """Whether `f(max(a, b)) == max(f(a), f(b))` to the last bit, for an expression f of `Input(0)`.

    Every other input must be the same for all values that are compared (a constant per channel).
    Taken are operations that are monotone in floating point, too: sums, maxima and minima,
    products with literals of at least 0, roundings, and leaky ReLUs with such slopes. Products with
    other inputs are not: their values may change when a plan is refitted.
    """
    if 0 not in inputs_of(expr):
        return True
    match expr:
        case Input():
            return True
        case Unary(op=op, x=x):
            return op in _ROUNDINGS and is_nondecreasing(x)
        case Binary(op="add" | "max" | "min", a=a, b=b):
            return is_nondecreasing(a) and is_nondecreasing(b)
        case Binary(op="sub", a=a, b=b):
            return 0 not in inputs_of(b) and is_nondecreasing(a)
        case (
            Binary(op="mul", a=a, b=Const(value=value))
            | Binary(op="mul", a=Const(value=value), b=a)
        ):
            return 0.0 <= value < math.inf and is_nondecreasing(a)
        case Binary(op="div", a=a, b=Const(value=value)):
            return 0.0 < value < math.inf and is_nondecreasing(a)
        case Select():
            return _is_leaky(expr)
        case _:
            return False


def _is_leaky(expr: Select) -> bool:
    """X above (or from) 0 and a multiple of x below, each with a factor of at least 0."""
    match expr.condition:
        case Binary(op="ge" | "gt", a=x, b=Const(value=0.0)):
            sides = (expr.a, expr.b)
        case Binary(op="le" | "lt", a=x, b=Const(value=0.0)):
            sides = (expr.b, expr.a)
        case _:
            return False
    return is_nondecreasing(x) and all(_is_multiple(side, x) for side in sides)


def _is_multiple(side: Expr, x: Expr) -> bool:
    if side == x:
        return True
    match side:
        case (
            Binary(op="mul", a=a, b=Const(value=value))
            | Binary(op="mul", a=Const(value=value), b=a)
        ):
            return a == x and 0.0 <= value < math.inf
        case Const(value=value):
            return value == 0.0
        case _:
            return False
