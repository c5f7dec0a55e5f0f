"""Scalar expressions as CUDA C++ over `ep_cuda_math.cuh`: single floats, and 64-bit integers.

Comparisons and logic give 1.0f or 0.0f; inside a condition they stay booleans. A subtree that
occurs more than once is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.c_expression import float_literal
from builder_host.codegen.c_integer_expression import print_c_integer
from builder_host.expressions import (
    BINARY_OPS,
    BOOLEAN_OPS,
    UNARY_OPS,
    Binary,
    Const,
    Expr,
    Input,
    Select,
    Unary,
)

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGIC = {"and": "&&", "or": "||", "xor": "!="}
_EXACT = {"add": "__fadd_rn", "sub": "__fsub_rn", "mul": "__fmul_rn"}
_FUNCTIONS = frozenset(UNARY_OPS) - BOOLEAN_OPS - {"neg"}
_FUNCTIONS_2 = frozenset({"floor_div", "mod", "fmod", "pow"})
_INTEGER_WORDS = (
    ('__builtin_nan("")', "double(EP_NAN)"),
    ("__builtin_inf()", "double(EP_INFINITY)"),
    ("__builtin_", ""),  # floor, ceil, trunc and sqrt of the math library
    ("(-ep_isnan_s", "(ep_isnan_s"),  # booleans here, masks in C
    ("(-ep_isinf_s", "(ep_isinf_s"),
    ("uint64_t", "ep_u64"),
    ("int64_t", "ep_i64"),
    ("INT64_C", "ep_i64"),
)


def print_cuda(expr: Expr, operands: Sequence[str], *, is_exact: bool = False) -> str:
    """A CUDA C++ expression of type `float`.

    Args:
        expr: the expression; `Input(i)` stands for `operands[i]`.
        operands: expressions of type `float` without side effects, best names of variables; they
            may be mentioned more than once.
        is_exact: round after every operation; otherwise the compiler joins products and sums into
            one rounding. Results of 8 bits agree bit by bit with other devices only when exact.

    Raises:
        IndexError: the expression has an input beyond the operands.
        ValueError: an operation that is unknown.
    """
    statements, result = print_cuda_statements(expr, operands, prefix="ep_t", is_exact=is_exact)
    if not statements:
        return result
    return "([&]() -> float { " + " ".join([*statements, f"return {result};"]) + " }())"


def print_cuda_statements(
    expr: Expr, operands: Sequence[str], *, prefix: str, is_exact: bool = False
) -> tuple[list[str], str]:
    """As `print_cuda`, but subtrees that occur more than once become statements.

    Args:
        expr: as for `print_cuda`.
        operands: as for `print_cuda`.
        prefix: start of the names of new variables, unique where the statements are put.
        is_exact: as for `print_cuda`.

    Returns:
        The statements (declarations of constants), and the expression of the result.
    """
    printer = _Printer(operands, prefix, is_exact)
    result = printer.print(expr)
    return printer.statements, result


def print_cuda_integer(expr: Expr, operands: Sequence[str]) -> str:
    """A CUDA C++ expression of type `ep_i64` over operands of that type (see `print_c_integer`)."""
    text = print_c_integer(expr, operands)
    for word, replacement in _INTEGER_WORDS:
        text = text.replace(word, replacement)
    return text


def cuda_float_literal(value: float) -> str:
    """A literal with exactly the float32 nearest to `value`."""
    if math.isnan(value):
        return "EP_NAN"
    text = float_literal(value)
    if "__builtin" in text:
        return "(-EP_INFINITY)" if text.startswith("(") else "EP_INFINITY"
    return text


class _Printer:
    """Prints one expression; equal subtrees share one variable."""

    def __init__(self, operands: Sequence[str], prefix: str, is_exact: bool) -> None:
        self.statements: list[str] = []
        self._is_exact = is_exact
        self._operands = operands
        self._prefix = prefix
        self._number_of: dict[tuple[object, ...], int] = {}  # structure -> number
        self._number_by_id: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._names: dict[int, str] = {}

    def print(self, expr: Expr) -> str:
        """Expression with the value of `expr`; fills `statements`. To be called once."""
        self._count(expr)
        return self._float(expr)

    # --- equal subtrees --------------------------------------------------------------------

    def _identity(self, expr: Expr) -> int:
        """A number that equal trees share; linear in the number of distinct nodes."""
        known = self._number_by_id.get(id(expr))
        if known is not None:
            return known
        key: tuple[object, ...]
        match expr:
            case Input(index=index):
                key = ("input", index)
            case Const(value=value):
                key = ("const", float(value).hex())
            case Unary(op=op, x=x):
                key = (op, self._identity(x))
            case Binary(op=op, a=a, b=b):
                key = (op, self._identity(a), self._identity(b))
            case Select(condition=condition, a=a, b=b):
                key = ("select", self._identity(condition), self._identity(a), self._identity(b))
        found = self._number_of.setdefault(key, len(self._number_of))
        self._number_by_id[id(expr)] = found  # the caller's tree keeps every node alive
        return found

    def _count(self, expr: Expr) -> None:
        if isinstance(expr, Input | Const):
            return
        number = self._identity(expr)
        self._uses[number] = self._uses.get(number, 0) + 1
        if self._uses[number] > 1:
            return
        match expr:
            case Unary(x=x):
                self._count(x)
            case Binary(op=op, a=a, b=b):
                self._count(a)
                self._count(b)
                if op == "pow" and b in (Const(2.0), Const(3.0)):
                    self._count(a)  # printed as a product
            case Select(condition=condition, a=a, b=b):
                self._count(condition)
                self._count(a)
                self._count(b)

    # --- printing --------------------------------------------------------------------------

    def _float(self, expr: Expr) -> str:
        match expr:
            case Input(index=index):
                return self._operands[index]
            case Const(value=value):
                return cuda_float_literal(value)
        identity = self._identity(expr)
        name = self._names.get(identity)
        if name is not None:
            return name
        result = self._compound(expr)
        if self._uses[identity] > 1:
            name = f"{self._prefix}{len(self._names)}"
            self._names[identity] = name
            self.statements.append(f"const float {name} = {result};")
            return name
        return result

    def _compound(self, expr: Expr) -> str:
        match expr:
            case Unary(op=op) | Binary(op=op) if op in BOOLEAN_OPS:
                return f"({self._bool(expr)} ? 1.0f : 0.0f)"
            case Unary(op="neg", x=x):
                return f"(-{self._float(x)})"
            case Unary(op=op, x=x) if op in _FUNCTIONS:
                return f"ep_{op}_s({self._float(x)})"
            case Binary(op="sub", a=Unary(op="exp", x=x), b=Const(value=1.0)):
                return f"ep_expm1_s({self._float(x)})"
            case Binary(op=op, a=a, b=b) if self._is_exact and op in _EXACT:
                return f"{_EXACT[op]}({self._float(a)}, {self._float(b)})"
            case Binary(op=op, a=a, b=b) if op in _INFIX:
                return f"({self._float(a)} {_INFIX[op]} {self._float(b)})"
            case Binary(op="max" | "min" as op, a=a, b=b):
                return self._extremum(op, a, b)
            case Binary(op="pow", a=a, b=Const(value=value)):
                return self._power(a, value)
            case Binary(op=op, a=a, b=b) if op in _FUNCTIONS_2:
                return f"ep_{op}_s({self._float(a)}, {self._float(b)})"
            case Select(condition=condition, a=a, b=b):
                return f"({self._bool(condition)} ? {self._float(a)} : {self._float(b)})"
            case Unary(op=op) | Binary(op=op):
                known = ", ".join(sorted({*UNARY_OPS, *BINARY_OPS}))
                raise ValueError(f"operation '{op}' cannot be printed as CUDA; known: {known}")
        raise ValueError(f"{expr!r} is no expression")

    def _extremum(self, op: str, a: Expr, b: Expr) -> str:
        for const, other in ((a, b), (b, a)):
            if isinstance(const, Const) and not math.isnan(const.value):
                literal = cuda_float_literal(const.value)
                return f"ep_{op}_const_first({literal}, {self._float(other)})"
        return f"ep_{op}({self._float(a)}, {self._float(b)})"

    def _power(self, base: Expr, exponent: float) -> str:
        x = self._float(base)
        if exponent in (2.0, 3.0):
            if self._is_exact:
                square = f"__fmul_rn({x}, {x})"
                return square if exponent == 2.0 else f"__fmul_rn({square}, {x})"
            return f"({x} * {x})" if exponent == 2.0 else f"({x} * {x} * {x})"
        forms = {1.0: x, -1.0: f"ep_recip_s({x})"}
        return forms.get(exponent) or f"ep_pow_s({x}, {cuda_float_literal(exponent)})"

    def _bool(self, expr: Expr) -> str:
        match expr:
            case Binary(op=op, a=a, b=b) if op in _LOGIC:
                return f"({self._bool(a)} {_LOGIC[op]} {self._bool(b)})"
            case Binary(op=op, a=a, b=b) if op in _COMPARE:
                return f"({self._float(a)} {_COMPARE[op]} {self._float(b)})"
            case Unary(op="not", x=x):
                return f"(!{self._bool(x)})"
            case Unary(op="isnan" | "isinf" as op, x=x):
                return f"ep_{op}_s({self._float(x)})"
        return f"({self._float(expr)} != 0.0f)"
