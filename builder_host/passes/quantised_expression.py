"""Scalar expressions of quantised layers: scales in, rounding out, scales folded into constants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import (
    Binary,
    Const,
    Expr,
    Input,
    Select,
    Unary,
    children,
    clip,
    substitute,
)
from builder_host.network.network import Tensor
from builder_host.passes.expression_rewrite import simplify
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

LEVELS: dict[DataType, tuple[float, float]] = {
    DataType.INT8: (-127.0, 127.0),
    DataType.UINT8: (0.0, 255.0),
}


def quantised(expr: Expr, scale: float, dtype: DataType) -> Expr:
    """round(expr / scale), half to even, clipped to the levels of INT8 (symmetric) or UINT8."""
    low, high = LEVELS[dtype]
    value = simplify(Binary("mul", expr, Const(float(np.float32(1.0 / scale)))))
    if low == 0.0:
        value = _without_relu(value)
    return clip(Unary("round", value), low, high)


def dequantised(expr: Expr, scale: float) -> Expr:
    """An 8-bit operand as a real number."""
    return Binary("mul", expr, Const(float(np.float32(scale))))


def quantised_values(values: npt.ArrayLike, scale: float | Array, dtype: DataType) -> Array:
    """A constant as integers of INT8 or UINT8, by the rule of `quantised`; scales broadcast."""
    low, high = LEVELS[dtype]
    rounded = np.clip(np.rint(np.asarray(values, dtype=np.float64) / scale), low, high)
    return rounded.astype(np.int8 if dtype is DataType.INT8 else np.uint8)


def _without_relu(expr: Expr) -> Expr:
    """Clipping at 0 does what a ReLU right before it did."""
    match expr:
        case Binary(op="max", a=a, b=Const(value=0.0)):
            return a
        case _:
            return expr


def fold_factor(
    expr: Expr, factor: float, operands: Sequence[Tensor | None]
) -> tuple[Expr, dict[int, float]]:
    """`expr * factor` for a positive factor, moved into literals and constant operands.

    Args:
        expr: over `Input(0)` and the operands `Input(1)` ...
        factor: finite, above 0.
        operands: `Input(1)` ...: constants that may be scaled, None for what must stay.

    Returns:
        The expression, and by operand index (as in `Input`) what its values must be multiplied
        with. Where nothing can be moved, a product is appended and no constant changes.
    """
    scalable = {
        number
        for number, tensor in enumerate(operands, start=1)
        if tensor is not None and _num_uses(expr, number) == 1
    }
    moved = _scaled(expr, factor, scalable)
    if moved is None:
        return Binary("mul", expr, Const(factor)), {}
    return simplify(moved[0]), moved[1]


def _num_uses(expr: Expr, index: int) -> int:
    own = int(expr == Input(index))
    return own + sum(_num_uses(child, index) for child in children(expr))


_Scaled = tuple[Expr, dict[int, float]]


def _scaled(expr: Expr, factor: float, scalable: Collection[int]) -> _Scaled | None:
    match expr:
        case Const(value=value):
            return Const(value * factor), {}
        case Input(index=index) if index in scalable:
            return expr, {index: factor}
        case Unary(op="neg" | "abs" as op, x=x):
            inner = _scaled(x, factor, scalable)
            return inner and (Unary(op, inner[0]), inner[1])
        case Binary(op="add" | "sub" | "max" | "min" as op, a=a, b=b):
            both = _both_scaled(a, b, factor, scalable)
            return both and (Binary(op, both[0], both[1]), both[2])
        case Binary(op="mul", a=a, b=b):
            right = _scaled(b, factor, scalable)
            if right is not None:
                return Binary("mul", a, right[0]), right[1]
            left = _scaled(a, factor, scalable)
            return left and (Binary("mul", left[0], b), left[1])
        case Select(condition=condition, a=a, b=b):
            both = _both_scaled(a, b, factor, scalable)
            return both and (Select(condition, both[0], both[1]), both[2])
        case _:
            return None


def _both_scaled(
    a: Expr, b: Expr, factor: float, scalable: Collection[int]
) -> tuple[Expr, Expr, dict[int, float]] | None:
    left = _scaled(a, factor, scalable)
    right = _scaled(b, factor, scalable)
    if left is None or right is None:
        return None
    return left[0], right[0], left[1] | right[1]


def with_sum_scale(expr: Expr, operand: int) -> Expr:
    """`expr` whose `Input(0)` is a sum of integers: multiplied with `Input(operand)` first.

    Operands from that index on move up by one.
    """
    last = max((i for i in _indices(expr)), default=0)
    places: list[Expr] = [Binary("mul", Input(0), Input(operand))]
    places += [Input(i if i < operand else i + 1) for i in range(1, last + 1)]
    return substitute(expr, places)


def _indices(expr: Expr) -> list[int]:
    if isinstance(expr, Input):
        return [expr.index]
    return [i for child in children(expr) for i in _indices(child)]
