"""Bounds of scalar expressions, for conversions to narrow integers that need no range check."""

from __future__ import annotations

import math
from collections.abc import Callable

from builder_host.expressions import Binary, Const, Expr, Select, Unary
from planformat.datatypes import DataType

_UNKNOWN = (-math.inf, math.inf)
_KEEP_ORDER = {"round", "floor", "ceil", "trunc"}
_RANGES = {DataType.INT8: (-128.0, 127.0), DataType.UINT8: (0.0, 255.0)}


def value_range(expr: Expr) -> tuple[float, float]:
    """Lowest and highest value that `expr` can have for any operands, NaN aside.

    Follows extrema, roundings and selections: enough for clipped results. Everything else is
    taken as unbounded.
    """
    match expr:
        case Const(value=value) if not math.isnan(value):
            return (value, value)
        case Unary(op=op, x=x) if op in _KEEP_ORDER:
            low, high = value_range(x)
            return (_whole(low, math.floor), _whole(high, math.ceil))
        case Binary(op="max" | "min" as op, a=a, b=b):
            (low_a, high_a), (low_b, high_b) = value_range(a), value_range(b)
            pick = max if op == "max" else min
            return (pick(low_a, low_b), pick(high_a, high_b))
        case Select(a=a, b=b):
            (low_a, high_a), (low_b, high_b) = value_range(a), value_range(b)
            return (min(low_a, low_b), max(high_a, high_b))
    return _UNKNOWN


def fits(expr: Expr, dtype: DataType) -> bool:
    """Whether every value of the expression, NaN aside, lies in the range of INT8 or UINT8."""
    if dtype not in _RANGES:
        return False
    low, high = value_range(expr)
    return _RANGES[dtype][0] <= low and high <= _RANGES[dtype][1]


def _whole(bound: float, rounding: Callable[[float], int]) -> float:
    return bound if math.isinf(bound) else float(rounding(bound))
