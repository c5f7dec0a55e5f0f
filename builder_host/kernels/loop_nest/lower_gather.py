"""Gather: elements picked by indices that are known at run time only."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Dynamic, Index
from builder_host.codegen.loop_nest import (
    Apply,
    Condition,
    Literal,
    Value,
    convert,
    guarded,
)
from builder_host.codegen.nest import Nest
from builder_host.expressions import Binary, Const, Input, Select
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.operands import Lowering, Operands
from planformat.datatypes import DataType

_FAR = 2**62


def lower(problem: Problem) -> list[Nest]:
    """Negative indices count from the end; an index out of range gives zero."""
    operands = Operands(problem)
    data, indices = problem.inputs[:2]
    axis = problem.params.axis
    extent, rank = data.shape[axis], len(indices.shape)
    wrapped = Select(
        Binary("lt", Input(0), Const(0.0)),
        Binary("add", Input(0), Const(float(extent))),
        Input(0),
    )

    def value(coords: Sequence[Index]) -> Value:
        picked = convert(operands.load(1, coords[axis : axis + rank]), DataType.INT64)
        position = Apply(wrapped, (picked,), DataType.INT64)
        inside = Index(((Dynamic(position, 0, max(extent - 1, 0)), 1),))
        anywhere = Index(((Dynamic(position, -_FAR, _FAR), 1),))
        source = [*coords[:axis], inside, *coords[axis + rank :]]
        zero = Literal(0, data.dtype)
        return guarded((Condition(anywhere, 0, extent),), operands.load(0, source), zero)

    return [operands.map(value)]


LOWERINGS: dict[str, Lowering] = {"gather": lower}
