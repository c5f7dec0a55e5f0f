"""Scalar expressions over integers as C: int64 arithmetic, double where a fraction can arise.

An integral literal beside integers stays an integer; a quotient or a transcendental function is
computed in double or float, and truncates when the result is stored as an integer.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.expressions import BOOLEAN_OPS, Binary, Const, Expr, Input, Select, Unary

_COMPARE = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGIC = {"and": "&", "or": "|", "xor": "^"}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
_BITS = {"bit_and": "&", "bit_or": "|", "bit_xor": "^"}
_SHIFTS = ("shift_left", "shift_right")
_REMAINDERS = {"floor_div": "ep_floor_div_i", "mod": "ep_mod_i", "fmod": "ep_fmod_i"}


def print_c_integer(expr: Expr, operands: Sequence[str]) -> str:
    """A C expression of type int64_t.

    Args:
        expr: the expression; `Input(i)` stands for `operands[i]`.
        operands: C expressions of type int64_t without side effects.
    """
    text, is_integer = _print(expr, operands)
    return text if is_integer else f"ep_to_i64({text})"


def _print(expr: Expr, operands: Sequence[str]) -> tuple[str, bool]:
    """C text, and whether it is an int64_t (else a double)."""
    match expr:
        case Input(index=index):
            return operands[index], True
        case Const(value=value):
            if value == int(value) if abs(value) < 2.0**62 else False:
                return f"INT64_C({int(value)})", True
            return _double_literal(value), False
        case Unary(op=op, x=x):
            return _unary(op, *_print(x, operands))
        case Binary(op=op, a=a, b=b):
            return _binary(op, _print(a, operands), _print(b, operands))
        case Select(condition=condition, a=a, b=b):
            mask, _ = _print(condition, operands)
            (left, left_int), (right, right_int) = _print(a, operands), _print(b, operands)
            return f"(({mask}) != 0 ? {left} : {right})", left_int and right_int
    raise ValueError(f"{expr!r} is no expression")


def _unary(op: str, x: str, is_integer: bool) -> tuple[str, bool]:
    match op:
        case "not":
            return f"(int64_t)(({x}) == 0)", True
        case "neg":
            return (f"(int64_t)(0u - (uint64_t){x})" if is_integer else f"(-{x})"), is_integer
        case "abs" if is_integer:
            return f"({x} < 0 ? (int64_t)(0u - (uint64_t){x}) : {x})", True
        case "sign" if is_integer:
            return f"(int64_t)(({x} > 0) - ({x} < 0))", True
        case "floor" | "ceil" | "round" | "trunc" if is_integer:
            return x, True
        case "isnan" | "isinf" if is_integer:
            return "INT64_C(0)", True
        case "floor" | "ceil" | "trunc" | "sqrt":
            return f"__builtin_{op}((double)({x}))", False
        case "isnan" | "isinf":
            return f"(int64_t)(-ep_{op}_s((float)({x})))", True
    return f"(double)ep_{op}_s((float)({x}))", False


def _binary(op: str, a: tuple[str, bool], b: tuple[str, bool]) -> tuple[str, bool]:
    (left, left_int), (right, right_int) = a, b
    both = left_int and right_int
    if op in _COMPARE:
        return f"(int64_t)({left} {_COMPARE[op]} {right})", True
    if op in _LOGIC:
        return f"(int64_t)((({left}) != 0) {_LOGIC[op]} (({right}) != 0))", True
    if op in _BITS:
        return f"((int64_t)({left}) {_BITS[op]} (int64_t)({right}))", True
    if op in _SHIFTS:
        return _shift(op, f"((int64_t)({left}))", f"((int64_t)({right}))"), True
    if op in _ARITHMETIC:
        if both:  # unsigned, because signed overflow is undefined
            sign = _ARITHMETIC[op]
            return f"(int64_t)((uint64_t)({left}) {sign} (uint64_t)({right}))", True
        return f"((double)({left}) {_ARITHMETIC[op]} (double)({right}))", False
    if op in ("min", "max"):
        sign = "<" if op == "min" else ">"
        return f"({left} {sign} {right} ? {left} : {right})", both
    if op in _REMAINDERS and both:
        return f"{_REMAINDERS[op]}({left}, {right})", True
    if op == "div":
        return f"((double)({left}) / (double)({right}))", False
    if op in BOOLEAN_OPS:
        raise ValueError(f"operation '{op}' cannot be printed for integers")
    return f"(double)ep_{op}_s((float)({left}), (float)({right}))", False


def _shift(op: str, x: str, count: str) -> str:
    """A count outside 0..63 is undefined in C: the result is what shifting everything out gives."""
    beyond = f"({count} < 0 || {count} > 63)"
    if op == "shift_left":
        return f"({beyond} ? INT64_C(0) : (int64_t)((uint64_t){x} << {count}))"
    return f"({x} >> ({beyond} ? INT64_C(63) : {count}))"


def _double_literal(value: float) -> str:
    if value != value:
        return '__builtin_nan("")'
    if value in (float("inf"), float("-inf")):
        return "__builtin_inf()" if value > 0 else "(-__builtin_inf())"
    return f"({value.hex()})"
