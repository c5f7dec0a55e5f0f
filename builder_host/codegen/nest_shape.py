"""Shape of a nest's iteration: dimensions dropped, merged and cut; what it computes stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import Condition
from builder_host.codegen.nest import (
    ArgBest,
    Emit,
    EmitTile,
    Nest,
    Stage,
    accesses,
    stage_indices,
    stage_variables,
    substitute_stage,
)

LANES = 32  # accumulators per chunk of the last dimension
WHOLE_LANES = 64  # a last dimension up to this is one chunk


def substitute_nest(nest: Nest, dims: Sequence[Var], replacements: dict[Var, Index]) -> Nest:
    """The nest over other dimensions: stages and bound with variables replaced by indices."""
    return replace(
        nest,
        dims=tuple(dims),
        stages=tuple(substitute_stage(s, replacements) for s in nest.stages),
        bound=None if nest.bound is None else nest.bound.substitute(replacements),
    )


def without_unit_dims(nest: Nest) -> Nest:
    """Drop dimensions and reduced variables of extent 1."""
    ones = {var: Index() for var in nest.dims if var.extent == 1}
    result = substitute_nest(nest, [v for v in nest.dims if v.extent != 1], ones)
    if result.lane is not None and result.lane in ones:
        result = replace(result, lane=None, bound=None)
    stages: list[Stage] = []
    for stage in result.stages:
        inner = {v: Index() for v in stage_variables(stage) if v.extent == 1}
        changed = substitute_stage(stage, inner)
        if not isinstance(changed, ArgBest | EmitTile) and inner:
            kept = tuple(v for v in changed.variables if v.extent != 1)
            changed = replace(changed, variables=kept)
        stages.append(stage if isinstance(stage, ArgBest) else changed)
    return replace(result, stages=tuple(stages))


def drop_harmless_bound(nest: Nest) -> Nest:
    """Remove the bound when the points outside it only touch padded lanes and slack."""
    if nest.bound is None or nest.lane is None or nest.is_exact:
        return nest
    lane = nest.lane
    for stage in nest.stages:
        for buffer, offset in accesses(stage):
            factor = offset.coefficient(lane)
            if factor == 0:
                continue
            if factor != 1 or (buffer.lanes != lane.extent and buffer.slack < lane.extent):
                return nest
    return replace(nest, bound=None, lane=None)


def _compatible(outer: Var, inner: Var, index: Index) -> bool:
    a, b = index.coefficient(outer), index.coefficient(inner)
    return a is not None and b is not None and a == b * inner.extent


def merged(nest: Nest) -> Nest:
    """The same computation with fewer dimensions: those of extent 1 dropped, neighbours merged."""
    return merged_neighbours(drop_harmless_bound(without_unit_dims(nest)))


def merged_neighbours(nest: Nest) -> Nest:
    """Merge neighbouring dimensions, and variables of stages, that every access walks as one."""
    nest = merged_dims(nest)
    return replace(nest, stages=tuple(_merged_stage(s) for s in nest.stages))


def merged_dims(nest: Nest) -> Nest:
    """Merge neighbouring dimensions alone."""
    number = len(nest.dims) - 2
    while number >= 0:
        outer, inner = nest.dims[number], nest.dims[number + 1]
        indices = [i for stage in nest.stages for i in stage_indices(stage)]
        if nest.bound is not None:
            indices.append(nest.bound.index)
        if nest.lane not in (outer, inner) and all(_compatible(outer, inner, i) for i in indices):
            whole = Var(f"{outer.name}{inner.name}", outer.extent * inner.extent)
            dims = [*nest.dims[:number], whole, *nest.dims[number + 2 :]]
            nest = substitute_nest(nest, dims, {outer: Index(), inner: as_index(whole)})
        number -= 1
    return nest


def _merged_stage(stage: Stage) -> Stage:
    if isinstance(stage, ArgBest | EmitTile):
        return stage
    number = len(stage.variables) - 2
    while number >= 0:
        outer, inner = stage.variables[number], stage.variables[number + 1]
        if all(_compatible(outer, inner, i) for i in stage_indices(stage)):
            whole = Var(f"{outer.name}{inner.name}", outer.extent * inner.extent)
            variables = (*stage.variables[:number], whole, *stage.variables[number + 2 :])
            changed = substitute_stage(stage, {outer: Index(), inner: as_index(whole)})
            assert not isinstance(changed, ArgBest | EmitTile)
            stage = replace(changed, variables=variables)
        number -= 1
    return stage


def has_state(nest: Nest) -> bool:
    """Whether some stage keeps values from one iteration to the next."""
    return any(not isinstance(s, Emit) or s.variables for s in nest.stages)


def chunked(nest: Nest) -> Nest:
    """Cut a long last dimension into chunks of lanes; the last chunk may be partial."""
    if not nest.dims or nest.dims[-1].extent <= WHOLE_LANES or nest.lane is not None:
        return nest
    last = nest.dims[-1]
    chunk = Var(f"{last.name}c", -(-last.extent // LANES))
    lane = Var(f"{last.name}l", LANES)
    position = as_index(chunk) * LANES + lane
    result = substitute_nest(nest, (*nest.dims[:-1], chunk, lane), {last: position})
    if last.extent % LANES == 0:
        return result
    return replace(result, bound=Condition(position, 0, last.extent), lane=lane, is_exact=True)
