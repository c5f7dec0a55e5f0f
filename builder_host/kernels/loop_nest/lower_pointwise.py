"""Pointwise kinds: one scalar expression per element of the output."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Index
from builder_host.codegen.loop_nest import Value, convert
from builder_host.codegen.nest import Nest
from builder_host.expressions import Expr, Input, is_rounded, keeps_integers
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
)
from builder_host.network.layers import definition
from planformat.datatypes import DataType


def lower(problem: Problem) -> list[Nest]:
    """The kind's expression over broadcast loads."""
    operands = Operands(problem)
    kind = definition(problem.kind)
    expression = getattr(kind, "expression", None)
    if expression is None:
        raise NotLowerableError(f"{problem.kind} has no expression")
    count = problem.num_own_inputs
    expr = expression(problem.params, count)
    if expr == Input(0) and problem.inputs[0].dtype is problem.outputs[0].dtype:
        return [operands.map(lambda c: operands.load_broadcast(0, c), block=_block(operands))]

    is_real = _is_real(expr, problem)

    def value(coords: Sequence[Index]) -> Value:
        values: list[Value] = [operands.load_broadcast(i, coords) for i in range(count)]
        if is_real:
            values = [v if v.dtype.is_float else convert(v, DataType.FLOAT32) for v in values]
        return apply(expr, values)

    return [operands.map(value, block=_block(operands))]


def lower_cast(problem: Problem) -> list[Nest]:
    """Another element type; any type to any other."""
    operands = Operands(problem)
    wanted = problem.params.dtype
    return [operands.map(lambda c: convert(operands.load(0, c), wanted), block=_block(operands))]


def _is_real(expr: Expr, problem: Problem) -> bool:
    """Whether integers are read as numbers: they become floats or are quantised anew."""
    if keeps_integers(expr):
        return False
    return problem.outputs[0].dtype.is_float or is_rounded(expr)


def _block(operands: Operands) -> int:
    return operands.shared_block() if len(operands.problem.outputs[0].shape) == 4 else 1


LOWERINGS: dict[str, Lowering] = {
    "activation": lower,
    "elementwise": lower,
    "parametric_relu": lower,
    "pointwise": lower,
    "scale": lower,
    "select": lower,
    "unary": lower,
    "cast": lower_cast,
}
