"""Gathers of all kinds: elements picked by indices that are known at run time only."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Index, as_index
from builder_host.codegen.loop_nest import FromIndex, Literal, Value, guarded
from builder_host.codegen.nest import Nest
from builder_host.expressions import Binary, Const, Input, Select
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.dynamic_index import from_end, integer, is_inside, position
from builder_host.kernels.loop_nest.operands import Lowering, Operands


def lower_gather(problem: Problem) -> list[Nest]:
    """Negative indices count from the end; an index out of range gives zero."""
    operands = Operands(problem)
    data, indices = problem.inputs[:2]
    axis, rank = problem.params.axis, len(indices.shape)
    extent = data.shape[axis]

    def value(coords: Sequence[Index]) -> Value:
        picked = from_end(operands.load(1, coords[axis : axis + rank]), extent)
        source = [*coords[:axis], position(picked, extent), *coords[axis + rank :]]
        zero = Literal(0, data.dtype)
        return guarded((is_inside(picked, extent),), operands.load(0, source), zero)

    return [operands.map(value)]


def lower_gather_elements(problem: Problem) -> list[Nest]:
    """As above with an index per element."""
    operands = Operands(problem)
    data, axis = problem.inputs[0], problem.params.axis
    extent = data.shape[axis]

    def value(coords: Sequence[Index]) -> Value:
        picked = from_end(operands.load(1, coords), extent)
        source = [*coords[:axis], position(picked, extent), *coords[axis + 1 :]]
        zero = Literal(0, data.dtype)
        return guarded((is_inside(picked, extent),), operands.load(0, source), zero)

    return [operands.map(value)]


def lower_gather_nd(problem: Problem) -> list[Nest]:
    """All indices of a tuple must be inside."""
    operands = Operands(problem)
    data, indices = problem.inputs[:2]
    batch, lead = problem.params.batch_dims, len(indices.shape) - 1
    extents = data.shape[batch : batch + indices.shape[-1]]

    def value(coords: Sequence[Index]) -> Value:
        picked = [
            from_end(operands.load(1, [*coords[:lead], as_index(number)]), extent)
            for number, extent in enumerate(extents)
        ]
        places = [position(p, e) for p, e in zip(picked, extents, strict=True)]
        source = [*coords[:batch], *places, *coords[lead:]]
        legal = tuple(is_inside(p, e) for p, e in zip(picked, extents, strict=True))
        return guarded(legal, operands.load(0, source), Literal(0, data.dtype))

    return [operands.map(value)]


def lower_reverse_sequence(problem: Problem) -> list[Nest]:
    """Step t of a sequence of length n comes from n-1-t while that is not negative."""
    operands = Operands(problem)
    params, x = problem.params, problem.inputs[0]
    steps = x.shape[params.time_axis]
    mirrored = Binary("sub", Binary("sub", Input(0), Const(1.0)), Input(1))
    source_step = Select(Binary("lt", Input(1), Input(0)), mirrored, Input(1))

    def value(coords: Sequence[Index]) -> Value:
        length = operands.load(1, [coords[params.batch_axis]])
        at_most = integer(Binary("min", Input(0), Const(float(steps))), length)
        step = integer(source_step, at_most, FromIndex(coords[params.time_axis]))
        source = list(coords)
        source[params.time_axis] = position(step, steps)
        return operands.load(0, source)

    return [operands.map(value)]


def lower_cache_update(problem: Problem) -> list[Nest]:
    """Each place finds the row of the update that belongs to it, if there is one."""
    operands = Operands(problem)
    params, (past, update) = problem.params, problem.inputs[:2]
    extent, rows = past.shape[params.axis], update.shape[params.axis]
    distance = Binary("sub", Input(0), Input(1))
    if params.is_circular:
        distance = Binary("mod", distance, Const(float(extent)))

    def value(coords: Sequence[Index]) -> Value:
        start = operands.load(2, [coords[0]])
        row = integer(distance, FromIndex(coords[params.axis]), start)
        source = list(coords)
        source[params.axis] = position(row, rows)
        fresh = operands.load(1, source)
        return guarded((is_inside(row, rows),), fresh, operands.load(0, coords))

    return [operands.map(value)]


LOWERINGS: dict[str, Lowering] = {
    "gather": lower_gather,
    "gather_elements": lower_gather_elements,
    "gather_nd": lower_gather_nd,
    "reverse_sequence": lower_reverse_sequence,
    "cache_update": lower_cache_update,
}
