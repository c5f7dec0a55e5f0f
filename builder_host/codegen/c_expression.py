"""Scalar expressions as C over `ep_vector.h`: vectors of float, or single floats.

Comparisons and logic give 1.0f or 0.0f. Inside a condition they stay masks, so that a leaky ReLU
is one compare and one blend. A subtree that occurs more than once is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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
_FUNCTIONS = frozenset(UNARY_OPS) - BOOLEAN_OPS - {"neg"}
_FUNCTIONS_2 = frozenset({"floor_div", "mod", "fmod", "pow"})


def print_c(expr: Expr, operands: Sequence[str], *, vector: bool) -> str:
    """A C expression of type `vf` (vector) or `float`.

    Args:
        expr: the expression; `Input(i)` stands for `operands[i]`.
        operands: C expressions without side effects, best names of variables; of type `vf` or
            `float` to suit `vector`. They may be mentioned more than once.
        vector: whether to print for whole vectors.

    Raises:
        IndexError: the expression has an input beyond the operands.
        ValueError: an operation that is unknown.
    """
    printer = CPrinter(operands, vector=vector, prefix="ep_t")
    result = printer.number(expr)
    if not printer.statements:
        return result
    return "({ " + " ".join([*printer.statements, result + ";"]) + " })"


def print_c_statements(
    expr: Expr, operands: Sequence[str], *, vector: bool, prefix: str
) -> tuple[list[str], str]:
    """As `print_c`, but subtrees that occur more than once become statements.

    Args:
        expr: as for `print_c`.
        operands: as for `print_c`.
        vector: as for `print_c`.
        prefix: start of the names of new variables, unique where the statements are put.

    Returns:
        The statements (declarations of constants), and the expression of the result.
    """
    printer = CPrinter(operands, vector=vector, prefix=prefix)
    result = printer.number(expr)
    return printer.statements, result


def float_literal(value: float) -> str:
    """A C float literal with exactly the float32 nearest to `value`."""
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    if math.isnan(single):
        return '__builtin_nanf("")'
    if math.isinf(single):
        return "__builtin_inff()" if single > 0 else "(-__builtin_inff())"
    if single == int(single) and abs(single) < 1e7:
        text = f"{single:.1f}f"
    else:
        text = f"{single.hex()}f"
    return f"({text})" if text.startswith("-") else text


class CPrinter:
    """Prints expressions over the same operands; equal subtrees share one variable.

    Attributes:
        statements: declarations made so far, in order.
    """

    def __init__(self, operands: Sequence[str], *, vector: bool, prefix: str) -> None:
        """Make a printer. See `print_c_statements` for the arguments."""
        self.statements: list[str] = []
        self._operands = operands
        self._vector = vector
        self._prefix = prefix
        self._number_of: dict[tuple[object, ...], int] = {}  # structure -> number
        self._number_by_id: dict[int, tuple[Expr, int]] = {}  # keeps the node alive
        self._uses: dict[int, int] = {}
        self._names: dict[int, str] = {}

    def number(self, expr: Expr) -> str:
        """C expression with the value of `expr`; may append to `statements`."""
        self._count(expr)
        return self._number(expr)

    # --- equal subtrees --------------------------------------------------------------------

    def _identity(self, expr: Expr) -> int:
        """A number that equal trees share; linear in the number of distinct nodes."""
        known = self._number_by_id.get(id(expr))
        if known is not None:
            return known[1]
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
        self._number_by_id[id(expr)] = (expr, found)
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

    def _call(self, name: str, *arguments: str) -> str:
        """A function that has an unsuffixed vector form."""
        return f"{name}{'' if self._vector else '_s'}({', '.join(arguments)})"

    def _math(self, name: str, *arguments: str) -> str:
        return f"ep_{name}{'_v' if self._vector else '_s'}({', '.join(arguments)})"

    def _const(self, value: float) -> str:
        literal = float_literal(value)
        return f"ep_splat({literal})" if self._vector else literal

    def _number(self, expr: Expr) -> str:
        match expr:
            case Input(index=index):
                return self._operands[index]
            case Const(value=value):
                return self._const(value)
        identity = self._identity(expr)
        name = self._names.get(identity)
        if name is not None:
            return name
        result = self._compound(expr)
        if self._uses[identity] > 1:
            name = f"{self._prefix}{len(self._names)}"
            self._names[identity] = name
            ctype = "vf" if self._vector else "float"
            self.statements.append(f"const {ctype} {name} = {result};")
            return name
        return result

    def _compound(self, expr: Expr) -> str:
        match expr:
            case Unary(op=op) if op in BOOLEAN_OPS:
                return self._call("ep_mask_to_float", self._mask(expr))
            case Binary(op=op) if op in BOOLEAN_OPS:
                return self._call("ep_mask_to_float", self._mask(expr))
            case Unary(op="neg", x=x):
                return f"(-{self._number(x)})"
            case Unary(op=op, x=x) if op in _FUNCTIONS:
                return self._math(op, self._number(x))
            case Binary(op="sub", a=Unary(op="exp", x=x), b=Const(value=1.0)):
                return self._math("expm1", self._number(x))
            case Binary(op=op, a=a, b=b) if op in _INFIX:
                return f"({self._number(a)} {_INFIX[op]} {self._number(b)})"
            case Binary(op="max" | "min" as op, a=a, b=b):
                return self._extremum(op, a, b)
            case Binary(op="pow", a=a, b=Const(value=value)):
                return self._power(a, value)
            case Binary(op=op, a=a, b=b) if op in _FUNCTIONS_2:
                return self._math(op, self._number(a), self._number(b))
            case Select(condition=condition, a=a, b=b):
                mask = self._mask(condition)
                return self._call("ep_select", mask, self._number(a), self._number(b))
            case Unary(op=op) | Binary(op=op):
                known = ", ".join(sorted({*UNARY_OPS, *BINARY_OPS}))
                raise ValueError(f"operation '{op}' cannot be printed as C; known: {known}")
        raise ValueError(f"{expr!r} is no expression")

    def _extremum(self, op: str, a: Expr, b: Expr) -> str:
        for const, other in ((a, b), (b, a)):
            if isinstance(const, Const) and not math.isnan(const.value):
                return self._call(
                    f"ep_{op}_const_first", self._const(const.value), self._number(other)
                )
        return self._call(f"ep_{op}", self._number(a), self._number(b))

    def _power(self, base: Expr, exponent: float) -> str:
        x = self._number(base)
        forms = {1.0: x, -1.0: self._math("recip", x)}
        if exponent in (2.0, 3.0):
            return f"({x} * {x})" if exponent == 2.0 else f"({x} * {x} * {x})"
        return forms.get(exponent) or self._math("pow", x, self._const(exponent))

    def _mask(self, expr: Expr) -> str:
        """C expression of a mask: `vi` of zeros and ones, or -1 and 0."""
        match expr:
            case Binary(op="and" | "or" | "xor" as op, a=a, b=b):
                sign = {"and": "&", "or": "|", "xor": "^"}[op]
                return f"({self._mask(a)} {sign} {self._mask(b)})"
            case Binary(op=op, a=a, b=b) if op in _COMPARE:
                comparison = f"({self._number(a)} {_COMPARE[op]} {self._number(b)})"
                return comparison if self._vector else f"(-{comparison})"
            case Unary(op="not", x=x):
                return f"(~{self._mask(x)})"
            case Unary(op="isnan" | "isinf" as op, x=x):
                return self._math(op, self._number(x))
        comparison = f"({self._number(expr)} != {self._const(0.0)})"
        return comparison if self._vector else f"(-{comparison})"
