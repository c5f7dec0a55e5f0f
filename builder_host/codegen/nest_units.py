"""A nest in its final shape -> work units and the loops of one unit."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index, minimum
from builder_host.codegen.loop_nest import Condition, If, Loop, Section, Statement
from builder_host.codegen.nest import Nest
from builder_host.codegen.nest_shape import WHOLE_LANES, has_state, substitute_nest
from builder_host.codegen.nest_stages import emits, stage_statements

UNIT_OPERATIONS = 8192  # aim for a unit: about a microsecond, well above the cost of taking one
MAX_UNITS = 64


def units(nest: Nest) -> Section:
    """Outer dimensions, or pieces of one, as work units; loops over the rest."""
    wanted = max(1, min(MAX_UNITS, nest.num_operations // UNIT_OPERATIONS))
    dims = list(nest.dims)
    unit_vars: list[Var] = []
    product = 1
    extents: dict[Var, Index] = {var: Index((), var.extent) for var in dims}
    while dims and product < wanted:
        var = dims[0]
        need = -(-wanted // product)
        is_last = len(dims) == 1 and nest.is_vector
        if var is nest.lane or (is_last and var.extent <= WHOLE_LANES):
            break
        if var.extent < 2 * need and not is_last:
            unit_vars.append(dims.pop(0))
            product *= var.extent
            continue
        size = -(-var.extent // need)
        if is_last:
            size = -(-size // 64) * 64
        count = -(-var.extent // size)
        if count > 1:
            piece, inner = Var(f"{var.name}u", count), Var(f"{var.name}i", size)
            nest = substitute_nest(
                nest, [inner, *dims[1:]], {var: as_index(piece) * size + as_index(inner)}
            )
            rest = Index((), var.extent) - as_index(piece) * size
            extents[inner] = (
                Index((), size) if var.extent % size == 0 else minimum(Index((), size), rest)
            )
            dims[0] = inner
            unit_vars.append(piece)
        break
    return Section(tuple(unit_vars), _loops(nest, dims, extents))


def _loops(nest: Nest, dims: Sequence[Var], extents: dict[Var, Index]) -> tuple[Statement, ...]:
    last = dims[-1] if dims and nest.is_vector else None
    outer = list(dims[:-1]) if last is not None else list(dims)
    if last is not None and last is nest.lane and nest.bound is not None:
        body = _bounded_lanes(nest, last, nest.bound)
    elif last is not None and not has_state(nest):
        body = (Loop(last, extents[last], emits(nest.stages), "vector"),)
    else:
        body = tuple(stage_statements(nest.stages, last, extents[last] if last else None))
    for var in reversed(outer):
        extent = extents[var]
        if var is nest.lane and nest.bound is not None:
            extent = minimum(extent, _room(nest.bound, var))
        body = (Loop(var, extent, body),)
    return body


def _room(bound: Condition, lane: Var) -> Index:
    """How many lanes lie inside the bound."""
    return Index((), bound.high) - bound.index.substitute({lane: Index()})


def _bounded_lanes(nest: Nest, lane: Var, bound: Condition) -> tuple[Statement, ...]:
    """Full blocks with a constant number of lanes, the last one with the constant rest."""

    def body(count: int) -> tuple[Statement, ...]:
        extent = Index((), count)
        if has_state(nest):
            return tuple(stage_statements(nest.stages, lane, extent))
        return (Loop(lane, extent, emits(nest.stages), "vector"),)

    first = bound.index.substitute({lane: Index()})
    rest = bound.high % lane.extent
    full = Condition(first, 0, bound.high - lane.extent + 1)
    if full.is_always_true:
        return body(lane.extent)
    partial: tuple[Statement, ...] = body(rest) if rest else ()
    some = Condition(first, 0, bound.high)
    if partial and not some.is_always_true:  # runs shorter than a block: some lie outside whole
        partial = (If((some,), partial),)
    if bound.high < lane.extent:
        return partial
    return (If((full,), body(lane.extent), partial),)
