"""Scalar expressions: the body of pointwise layers and the epilogue of the hot families.

An expression is a tree over `Input(i)`, `Const(v)` and the operations below. The same tree is
evaluated in numpy (reference), printed as C and as CUDA C++ (code generation), and written as
canonical text (keys). Trees are immutable and compare by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNARY_OPS: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "recip": lambda x: 1.0 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": lambda x: np.vectorize(math.erf, otypes=[np.float64])(x),
    "sigmoid": lambda x: np.where(
        x >= 0, 1.0 / (1.0 + np.exp(-np.abs(x))), 1.0 - 1.0 / (1.0 + np.exp(-np.abs(x)))
    ),
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,  # half to even
    "trunc": np.trunc,
    "sign": np.sign,
    "not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
}
BINARY_OPS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floor_div": np.floor_divide,
    "mod": np.mod,  # sign of the divisor
    "fmod": np.fmod,  # sign of the dividend
    "pow": np.power,
    "min": np.minimum,  # a NaN operand gives NaN
    "max": np.maximum,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _shifted_left(x: Array, count: Array) -> Array:
    """Bits move out at the top; a count outside 0..63 leaves 0."""
    bits = np.asarray(x).astype(np.int64).astype(np.uint64)
    places = np.asarray(count).astype(np.int64)
    legal = (places >= 0) & (places < 64)
    moved = np.left_shift(bits, np.where(legal, places, 0).astype(np.uint64))
    return np.where(legal, moved, np.uint64(0)).astype(np.int64)


def _shifted_right(x: Array, count: Array) -> Array:
    """Copies of the sign move in; a count outside 0..63 leaves 0 or -1."""
    places = np.asarray(count).astype(np.int64)
    return np.right_shift(
        np.asarray(x).astype(np.int64), np.where((places >= 0) & (places < 64), places, 63)
    )


def _on_integers(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: function(np.asarray(a).astype(np.int64), np.asarray(b).astype(np.int64))


# Operations on 64-bit integers only: no float expression may hold them.
INTEGER_OPS: dict[str, Callable[[Array, Array], Array]] = {
    "bit_and": _on_integers(np.bitwise_and),
    "bit_or": _on_integers(np.bitwise_or),
    "bit_xor": _on_integers(np.bitwise_xor),
    "shift_left": _shifted_left,
    "shift_right": _shifted_right,
}
BOOLEAN_OPS = frozenset({"not", "isnan", "isinf", "and", "or", "xor", "eq", "lt", "le", "gt", "ge"})


@dataclass(frozen=True, slots=True)
class Input:
    """Operand number `index` of the layer or epilogue."""

    index: int


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. Comparison is by value; NaN and infinities are legal."""

    value: float


@dataclass(frozen=True, slots=True)
class Unary:
    """One of `UNARY_OPS` applied to `x`."""

    op: str
    x: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """One of `BINARY_OPS` or `INTEGER_OPS` applied to `a` and `b`."""

    op: str
    a: Expr
    b: Expr


@dataclass(frozen=True, slots=True)
class Select:
    """`a` where `condition` is not zero, else `b`; both sides may be evaluated."""

    condition: Expr
    a: Expr
    b: Expr


Expr = Input | Const | Unary | Binary | Select


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct operands of an expression node."""
    match expr:
        case Unary(x=x):
            return (x,)
        case Binary(a=a, b=b):
            return (a, b)
        case Select(condition=condition, a=a, b=b):
            return (condition, a, b)
        case _:
            return ()


def inputs_of(expr: Expr) -> frozenset[int]:
    """Indices of all inputs that occur in the expression."""
    if isinstance(expr, Input):
        return frozenset({expr.index})
    return frozenset().union(*(inputs_of(child) for child in children(expr)))


def substitute(expr: Expr, replacements: Sequence[Expr]) -> Expr:
    """Replace every `Input(i)` by `replacements[i]`; this composes expressions."""
    match expr:
        case Input(index=index):
            return replacements[index]
        case Unary(op=op, x=x):
            return Unary(op, substitute(x, replacements))
        case Binary(op=op, a=a, b=b):
            return Binary(op, substitute(a, replacements), substitute(b, replacements))
        case Select(condition=condition, a=a, b=b):
            return Select(
                substitute(condition, replacements),
                substitute(a, replacements),
                substitute(b, replacements),
            )
        case _:
            return expr


def evaluate(expr: Expr, operands: Sequence[Array]) -> Array:
    """Evaluate with numpy broadcasting; the operands' own precision is used (float64 for tests)."""
    match expr:
        case Input(index=index):
            return operands[index]
        case Const(value=value):
            return np.asarray(value)
        case Unary(op=op, x=x):
            return UNARY_OPS[op](evaluate(x, operands))
        case Binary(op=op, a=a, b=b):
            function = BINARY_OPS.get(op) or INTEGER_OPS[op]
            return function(evaluate(a, operands), evaluate(b, operands))
        case Select(condition=condition, a=a, b=b):
            return np.where(
                evaluate(condition, operands).astype(bool),
                evaluate(a, operands),
                evaluate(b, operands),
            )


def evaluate_single(expr: Expr, operands: Sequence[npt.NDArray[np.float32]]) -> Array:
    """Evaluate in float32 throughout: literals are rounded first, every operation once."""
    literals: list[Array] = []

    def without_literals(node: Expr) -> Expr:
        match node:
            case Const(value=value):
                literals.append(np.asarray(value, dtype=np.float32))
                return Input(len(operands) + len(literals) - 1)
            case Unary(op=op, x=x):
                return Unary(op, without_literals(x))
            case Binary(op=op, a=a, b=b):
                return Binary(op, without_literals(a), without_literals(b))
            case Select(condition=condition, a=a, b=b):
                return Select(*(without_literals(part) for part in (condition, a, b)))
            case _:
                return node

    return evaluate(without_literals(expr), [*operands, *literals])


def text(expr: Expr) -> str:
    """Canonical text: equal trees give equal text, and the text names every constant exactly."""
    match expr:
        case Input(index=index):
            return f"x{index}"
        case Const(value=value):
            return float(value).hex()
        case Unary(op=op, x=x):
            return f"{op}({text(x)})"
        case Binary(op=op, a=a, b=b):
            return f"{op}({text(a)},{text(b)})"
        case Select(condition=condition, a=a, b=b):
            return f"select({text(condition)},{text(a)},{text(b)})"


def num_operations(expr: Expr) -> int:
    """Number of unary, binary and select nodes: the cost model's measure of an epilogue."""
    own = 0 if isinstance(expr, Input | Const) else 1
    return own + sum(num_operations(child) for child in children(expr))


def keeps_integers(expr: Expr) -> bool:
    """Whether integer operands give integers at every node."""
    match expr:
        case Const(value=value):
            return value.is_integer()
        case Unary(op=op) if op not in ("neg", "abs", "sign", "not"):
            return False
        case Binary(op="div" | "pow"):
            return False
        case _:
            return all(keeps_integers(child) for child in children(expr))


def is_rounded(expr: Expr) -> bool:
    """Whether `round` occurs: the mark of a quantising expression."""
    if isinstance(expr, Unary) and expr.op == "round":
        return True
    return any(is_rounded(child) for child in children(expr))


def relu(x: Expr) -> Expr:
    """max(x, 0)."""
    return Binary("max", x, Const(0.0))


def clip(x: Expr, low: float, high: float) -> Expr:
    """min(max(x, low), high)."""
    return Binary("min", Binary("max", x, Const(low)), Const(high))


def leaky_relu(x: Expr, slope: Expr) -> Expr:
    """X where x >= 0, else slope * x."""
    return Select(Binary("ge", x, Const(0.0)), x, Binary("mul", x, slope))
