"""Scatters: every work unit owns a part of the output, copies it, and applies what falls into it.

So no two units write one element, and updates of one element run in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index, dot
from builder_host.codegen.loop_nest import (
    Assign,
    Condition,
    Declare,
    If,
    Load,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
    convert,
)
from builder_host.expressions import Binary, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.dynamic_index import anywhere, from_end, is_inside, position
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    offset,
)
from planformat.datatypes import DataType

_UNITS = 64  # parts that the output is cut into when its other dimensions are fewer
_PIECE = 64  # elements of the last dimension that one unit takes along
_I64 = DataType.INT64


class _Scatter:
    """What both kinds share: buffers, and how an update meets the old value."""

    def __init__(self, problem: Problem) -> None:
        if problem.epilogue is not None:
            raise NotLowerableError("scatters take no epilogue")
        self.operands = Operands(problem)
        self.layout = problem.outputs[0]
        self.reduction = problem.params.reduction

    def copy(self, coords: Sequence[Index]) -> Store:
        where = offset(self.layout, coords)
        return Store(self.operands.outputs[0], where, self.operands.load(0, coords))

    def update(self, coords: Sequence[Index], value: Value) -> Store:
        where = offset(self.layout, coords)
        target = self.operands.outputs[0]
        if self.reduction != "none":
            combined = Binary(self.reduction, Input(0), Input(1))
            value = convert(apply(combined, [Load(target, where), value]), target.dtype)
        return Store(target, where, value)


def _nested(variables: Sequence[Var], body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    for var in reversed(variables):
        body = (Loop(var, Index((), var.extent), body),)
    return body


def _when(conditions: Sequence[Condition], body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    open_ = tuple(c for c in conditions if not c.is_always_true)
    return (If(open_, body),) if open_ else body


def _part(extent: int, num_others: int) -> int:
    """Length of the parts of an axis that is scattered along."""
    return max(1, -(-extent // max(1, _UNITS // max(num_others, 1))))


def lower_scatter_elements(problem: Problem) -> list[Section]:
    """A unit is a part of one line along the axis."""
    scatter = _Scatter(problem)
    operands, axis = scatter.operands, problem.params.axis
    shape, indices = problem.outputs[0].shape, problem.inputs[1]
    if 0 in shape:
        return []
    others = [Var(f"i{d}", e) for d, e in enumerate(shape) if d != axis]
    extent = shape[axis]
    size = _part(extent, math.prod(v.extent for v in others))
    part, own = Var("part", -(-extent // size)), Var("own", size)
    fixed = [as_index(v) for v in others]

    def at(place: Index) -> list[Index]:
        return [*fixed[:axis], place, *fixed[axis:]]

    first = as_index(part) * size
    own_place = first + own
    body = _nested([own], _when([Condition(own_place, 0, extent)], (scatter.copy(at(own_place)),)))
    step = Var("step", indices.shape[axis])
    target = Local("target", _I64)
    limits = [e for d, e in enumerate(indices.shape) if d != axis]
    exists = [Condition(c, 0, e) for c, e in zip(fixed, limits, strict=True)]
    place = position(target, extent)
    mine = (Condition(anywhere(target) - first, 0, size), is_inside(target, extent))
    apply_one: tuple[Statement, ...] = (
        Declare("target", _I64),
        Assign(target, from_end(operands.load(1, at(as_index(step))), extent)),
        If(mine, (scatter.update(at(place), operands.load(2, at(as_index(step)))),)),
    )
    body += _when(exists, _nested([step], apply_one))
    return [Section((*others, part), body)]


def lower_scatter_nd(problem: Problem) -> list[Section]:
    """A unit is a range of slices, and a piece of each slice."""
    scatter = _Scatter(problem)
    operands, indices = scatter.operands, problem.inputs[1]
    shape = problem.outputs[0].shape
    if 0 in shape:
        return []
    depth = indices.shape[-1]
    extents, inner = shape[:depth], shape[depth:]
    steps = [math.prod(extents[d + 1 :]) for d in range(depth)]
    num_slices = math.prod(extents)
    lead = [Var(f"i{d}", e) for d, e in enumerate(inner[:-1])]
    last = inner[-1] if inner else 1
    piece, lane = Var("piece", -(-last // _PIECE)), Var("lane", min(last, _PIECE))
    column = as_index(piece) * _PIECE + lane
    size = _part(num_slices, piece.extent * math.prod(v.extent for v in lead))
    part, own = Var("part", -(-num_slices // size)), Var("own", size)
    rest = [*map(as_index, lead), column] if inner else []
    in_slice = [Condition(column, 0, last)]
    first = as_index(part) * size
    row = first + own
    of_row = [
        (row // step) % extent if d else row // step
        for d, (step, extent) in enumerate(zip(steps, extents, strict=True))
    ]
    copy_slice = _nested([lane], _when(in_slice, (scatter.copy([*of_row, *rest]),)))
    body = _nested([own], _when([Condition(row, 0, num_slices)], copy_slice))
    tuples = [Var(f"t{d}", e) for d, e in enumerate(indices.shape[:-1])]
    at = [as_index(v) for v in tuples]
    names = [Local(f"target{d}", _I64) for d in range(depth)]
    places = [position(name, extent) for name, extent in zip(names, extents, strict=True)]
    legal = [is_inside(name, extent) for name, extent in zip(names, extents, strict=True)]
    mine = Condition(dot([anywhere(name) for name in names], steps) - first, 0, size)
    updated = scatter.update([*places, *rest], operands.load(2, [*at, *rest]))
    write_slice = _nested([lane], _when(in_slice, (updated,)))
    apply_one: list[Statement] = []
    for number, (name, extent) in enumerate(zip(names, extents, strict=True)):
        picked = from_end(operands.load(1, [*at, as_index(number)]), extent)
        apply_one += [Declare(name.name, _I64), Assign(name, picked)]
    apply_one += _when([*legal, mine], write_slice)
    body += _nested(tuples, tuple(apply_one))
    return [Section((*lead, piece, part), body)]


LOWERINGS: dict[str, Lowering] = {
    "scatter_elements": lower_scatter_elements,
    "scatter_nd": lower_scatter_nd,
}
