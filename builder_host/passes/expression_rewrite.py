"""Rewrites of expressions that several passes share: simplify, compact, split into affine parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.expressions import (
    Binary,
    Const,
    Expr,
    Input,
    Select,
    Unary,
    children,
    evaluate,
    inputs_of,
    substitute,
)
from builder_host.network.network import Tensor
from builder_host.network.rules import require_broadcast

_ZERO, _ONE = Const(0.0), Const(1.0)


def simplify(expr: Expr) -> Expr:
    """Equal expression for floats: literals folded, neutral operations dropped, cheaper powers.

    A division by a literal becomes a product with its reciprocal: at most one more rounding.
    """
    match expr:
        case Unary(op=op, x=x):
            return _simplified_unary(op, simplify(x))
        case Binary(op=op, a=a, b=b):
            return _simplified_binary(op, simplify(a), simplify(b))
        case Select(condition=condition, a=a, b=b):
            condition, a, b = simplify(condition), simplify(a), simplify(b)
            if isinstance(condition, Const):
                return a if condition.value != 0 else b
            return a if a == b else Select(condition, a, b)
        case _:
            return expr


def _folded(expr: Expr) -> Const:
    with np.errstate(all="ignore"):
        return Const(float(evaluate(expr, [])))


def _simplified_unary(op: str, x: Expr) -> Expr:
    if isinstance(x, Const):
        return _folded(Unary(op, x))
    if op == "recip" and isinstance(x, Unary) and x.op == "sqrt":
        return Unary("rsqrt", x.x)
    if op == "neg" and isinstance(x, Unary) and x.op == "neg":
        return x.x
    return Unary(op, x)


def _simplified_binary(op: str, a: Expr, b: Expr) -> Expr:
    if isinstance(a, Const) and isinstance(b, Const):
        return _folded(Binary(op, a, b))
    if op in ("add", "mul", "min", "max") and isinstance(a, Const):
        a, b = b, a  # literals come second
    if isinstance(b, Const):
        found = _with_literal(op, a, b.value)
        if found is not None:
            return found
    return Binary(op, a, b)


def _with_literal(op: str, a: Expr, value: float) -> Expr | None:
    """Simpler form of `a op value`, or None."""
    neutral = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}
    if op in neutral and value == neutral[op]:
        return a
    if (op == "max" and value == -np.inf) or (op == "min" and value == np.inf):
        return a
    if op == "div" and value != 0 and np.isfinite(value) and 1e-30 < abs(value) < 1e30:
        return Binary("mul", a, Const(1.0 / value))
    if op == "pow":
        cheap: dict[float, Expr] = {
            2.0: Binary("mul", a, a),
            3.0: Binary("mul", Binary("mul", a, a), a),
            0.5: Unary("sqrt", a),
            -0.5: Unary("rsqrt", a),
            -1.0: Unary("recip", a),
        }
        return cheap.get(value)
    if op in ("max", "min") and isinstance(a, Binary) and a.op == op and isinstance(a.b, Const):
        inner, both = a.b.value, max if op == "max" else min
        return Binary(op, a.a, Const(both(inner, value)))
    return None


def literal_of(tensor: Tensor) -> Const | None:
    """The one value that all elements of a constant have, or None."""
    if tensor.values is None or tensor.values.size == 0:
        return None
    first = tensor.values.flat[0]
    if tensor.values.dtype.kind in "iu" and abs(int(first)) > 2**53:
        return None
    return Const(float(first)) if bool(np.all(tensor.values == first)) else None


def compact(
    expr: Expr, inputs: Sequence[Tensor], shape: tuple[int, ...]
) -> tuple[Expr, list[Tensor]]:
    """Inline constants of one value, merge equal inputs, drop unread ones, renumber by first use.

    Args:
        expr: over `inputs`.
        inputs: broadcast to `shape` together.
        shape: of the result; the inputs that are left still broadcast to it, and there is at
            least one.

    Returns:
        The expression and its inputs.
    """
    literals = [literal_of(t) for t in inputs]
    kept = [t for t, literal in zip(inputs, literals, strict=True) if literal is None]
    if not kept or require_broadcast([t.shape for t in kept]) != shape:
        literals = [None] * len(inputs)
    inlined = substitute(expr, [Input(i) if lit is None else lit for i, lit in enumerate(literals)])
    order: list[Tensor] = []
    for index in _first_uses(inlined):
        if inputs[index] not in order:
            order.append(inputs[index])
    if not order or require_broadcast([t.shape for t in order]) != shape:
        for tensor, literal in zip(inputs, literals, strict=True):  # the shape needs unread inputs
            if literal is None and tensor not in order:
                order.append(tensor)
    places: list[Expr] = [Input(order.index(t)) if t in order else _ZERO for t in inputs]
    return substitute(inlined, places), order


def _first_uses(expr: Expr) -> list[int]:
    """Indices of inputs in the order of their first occurrence."""
    if isinstance(expr, Input):
        return [expr.index]
    return list(dict.fromkeys(i for child in children(expr) for i in _first_uses(child)))


def ordered(expr: Expr) -> Expr:
    """Equal expression whose commutative operands stand in the order of their first inputs.

    Layers that differ in the order alone then share a kernel and a timing.
    """
    match expr:
        case Unary(op=op, x=x):
            return Unary(op, ordered(x))
        case Binary(op=op, a=a, b=b):
            a, b = ordered(a), ordered(b)
            swaps = op in ("add", "mul", "min", "max") and _first_input(b) < _first_input(a)
            return Binary(op, b, a) if swaps else Binary(op, a, b)
        case Select(condition=condition, a=a, b=b):
            return Select(ordered(condition), ordered(a), ordered(b))
        case _:
            return expr


def _first_input(expr: Expr) -> float:
    """Lowest index of an input; infinity for literals, which so come last."""
    return min(inputs_of(expr), default=np.inf)


def affine_parts(expr: Expr, index: int) -> tuple[Expr, Expr] | None:
    """(scale, shift) without `Input(index)` so that expr = Input(index) * scale + shift.

    None when the expression is not of that form, as far as products, sums and negations show.
    """
    if index not in inputs_of(expr):
        return _ZERO, expr
    match expr:
        case Input():
            return _ONE, _ZERO
        case Unary(op="neg", x=x):
            parts = affine_parts(x, index)
            return parts and (Unary("neg", parts[0]), Unary("neg", parts[1]))
        case Binary(op="add" | "sub" as op, a=a, b=b):
            left, right = affine_parts(a, index), affine_parts(b, index)
            if left is None or right is None:
                return None
            return Binary(op, left[0], right[0]), Binary(op, left[1], right[1])
        case Binary(op="mul" | "div" as op, a=a, b=b):
            if index in inputs_of(b):
                if op == "div" or index in inputs_of(a):
                    return None
                a, b = b, a
            parts = affine_parts(a, index)
            return parts and (Binary(op, parts[0], b), Binary(op, parts[1], b))
        case _:
            return None
