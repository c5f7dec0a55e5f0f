"""Nest -> loops: merged dimensions, work units, vector lanes.

1. Dimensions of extent 1 vanish; neighbours that every access walks as one are merged.
2. Nests with reductions keep one accumulator per lane of the last dimension, in chunks.
3. Outer dimensions (or pieces of one) become work units of a few microseconds.
4. A partial last channel block is computed whole where that only touches padded lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder_host.codegen.indices import Index, Var, as_index, minimum
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Condition,
    CopyTile,
    Declare,
    FromIndex,
    If,
    Literal,
    Load,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
    convert,
    guarded,
)
from builder_host.codegen.nest import (
    ArgBest,
    Emit,
    EmitTile,
    Nest,
    Reduce,
    Stage,
    StoreTo,
    accesses,
    bind_locals,
    stage_indices,
    stage_variables,
    substitute_stage,
)
from builder_host.expressions import Binary, Input, Select
from planformat.datatypes import DataType

UNIT_OPERATIONS = 8192  # aim for a unit: about a microsecond, well above the cost of taking one
MAX_UNITS = 64
LANES = 32  # accumulators per chunk of the last dimension
SPLIT_LANES = (64, 16)  # partial results of a reduction along contiguous memory: long, short
_WHOLE_LANES = 64  # a last dimension up to this is one chunk


def schedule(nest: Nest, vector_elems: int) -> list[Section]:
    """Loops of one nest; none when it has nothing to compute.

    Args:
        nest: the computation.
        vector_elems: FLOAT32 lanes of the target; the side of transposed tiles.
    """
    if any(var.extent == 0 for var in nest.dims):
        return []
    nest = _without_unit_dims(nest)
    nest = _drop_harmless_bound(nest)
    if _copied(nest) is not None:
        tiled = _tiled(nest, vector_elems)
        if tiled is not None:
            return tiled
    nest = _merged(nest)
    nest = replace(nest, stages=tuple(_merged_stage(s) for s in nest.stages))
    if nest.is_vector and _has_state(nest):
        nest = _chunked(nest)
    return [_units(nest)]


def merged(nest: Nest) -> Nest:
    """The same computation with fewer dimensions: those of extent 1 dropped, neighbours merged."""
    nest = _merged(_drop_harmless_bound(_without_unit_dims(nest)))
    return replace(nest, stages=tuple(_merged_stage(s) for s in nest.stages))


# --- transposed tiles ----------------------------------------------------------------------------


def _copied(nest: Nest) -> tuple[StoreTo, Load] | None:
    """Store and load of a nest that only moves FLOAT32 elements."""
    if len(nest.stages) != 1:
        return None
    stage = nest.stages[0]
    if not isinstance(stage, Emit) or stage.variables or stage.conditions or len(stage.stores) != 1:
        return None
    store = stage.stores[0]
    load = store.value
    if not isinstance(load, Load) or load.buffer.dtype is not DataType.FLOAT32:
        return None
    return (store, load) if store.buffer.dtype is DataType.FLOAT32 else None


def _tiled(nest: Nest, size: int) -> list[Section] | None:
    """Sections of whole tiles and of the rest, or None where tiles do not apply."""
    if nest.bound is not None and nest.lane is not None:
        if sum(1 for v in nest.dims if nest.bound.index.coefficient(v)) > 2:
            return None  # blocks cut into runs
        parts = _without_bound(nest, nest.bound, nest.lane)
        tiled = [_tiled(part, size) for part in parts]
        if all(found is None for found in tiled):
            return None
        result: list[Section] = []
        for part, found in zip(parts, tiled, strict=True):
            result.extend(schedule(part, size) if found is None else found)
        return result
    nest = _merged(_without_unit_dims(nest))
    copied = _copied(nest)
    assert copied is not None
    store, load = copied
    along = [v for v in nest.dims if store.offset.coefficient(v) == 1]  # contiguous in the target
    across = [v for v in nest.dims if load.offset.coefficient(v) == 1]
    if len(along) != 1 or len(across) != 1 or along == across:
        return None
    a, b = along[0], across[0]
    source_stride, target_stride = load.offset.coefficient(a), store.offset.coefficient(b)
    if not source_stride or not target_stride or min(a.extent, b.extent) < size:
        return None
    rows, columns = Var(f"{b.name}t", b.extent // size), Var(f"{a.name}t", a.extent // size)
    others = [v for v in nest.dims if v not in (a, b)]
    moved = {a: as_index(columns) * size, b: as_index(rows) * size}
    tile = EmitTile(
        store.buffer, store.offset.substitute(moved), target_stride,
        load.buffer, load.offset.substitute(moved), source_stride, size * size,
    )  # fmt: skip
    sections = [_units(Nest((*others, rows, columns), (tile,), is_vector=False))]
    for var, other, limit in ((b, a, a.extent), (a, b, b.extent - b.extent % size)):
        rest = var.extent % size
        if rest:  # the second strip leaves out the corner that belongs to the first
            edge, whole = Var(f"{var.name}r", rest), Var(other.name, limit)
            shift = {var: as_index(edge) + (var.extent - rest), other: as_index(whole)}
            inner = [whole, edge] if var is a else [edge, whole]
            strip = _substitute(nest, [*others, *inner], shift)
            sections.append(_units(strip))
    return sections


def _without_bound(nest: Nest, bound: Condition, lane: Var) -> list[Nest]:
    """The full channel blocks, and the partial one as a nest of its own."""
    outer = [v for v in nest.dims if v is not lane and bound.index.coefficient(v)]
    if not outer:  # a single, partial block
        short = Var(lane.name, bound.high)
        dims = [short if v is lane else v for v in nest.dims]
        only = _substitute(nest, dims, {lane: as_index(short)})
        return [replace(only, bound=None, lane=None)]
    block = outer[0]
    full, rest = divmod(bound.high, lane.extent)
    whole, short = Var(block.name, full), Var(lane.name, rest)
    found = []
    if full:
        dims = [whole if v is block else v for v in nest.dims]
        found.append(
            replace(_substitute(nest, dims, {block: as_index(whole)}), bound=None, lane=None)
        )
    dims = [short if v is lane else v for v in nest.dims if v is not block]
    last = _substitute(nest, dims, {block: Index((), full), lane: as_index(short)})
    return [*found, replace(last, bound=None, lane=None)]


# --- shape of the iteration ---------------------------------------------------------------------


def _substitute(nest: Nest, dims: Sequence[Var], replacements: dict[Var, Index]) -> Nest:
    return replace(
        nest,
        dims=tuple(dims),
        stages=tuple(substitute_stage(s, replacements) for s in nest.stages),
        bound=None if nest.bound is None else nest.bound.substitute(replacements),
    )


def _without_unit_dims(nest: Nest) -> Nest:
    ones = {var: Index() for var in nest.dims if var.extent == 1}
    result = _substitute(nest, [v for v in nest.dims if v.extent != 1], ones)
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


def _drop_harmless_bound(nest: Nest) -> Nest:
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


def _merged(nest: Nest) -> Nest:
    number = len(nest.dims) - 2
    while number >= 0:
        outer, inner = nest.dims[number], nest.dims[number + 1]
        indices = [i for stage in nest.stages for i in stage_indices(stage)]
        if nest.bound is not None:
            indices.append(nest.bound.index)
        if nest.lane not in (outer, inner) and all(_compatible(outer, inner, i) for i in indices):
            whole = Var(f"{outer.name}{inner.name}", outer.extent * inner.extent)
            dims = [*nest.dims[:number], whole, *nest.dims[number + 2 :]]
            nest = _substitute(nest, dims, {outer: Index(), inner: as_index(whole)})
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


def _has_state(nest: Nest) -> bool:
    return any(not isinstance(s, Emit) or s.variables for s in nest.stages)


def _chunked(nest: Nest) -> Nest:
    """Cut a long last dimension into chunks of lanes; the last chunk may be partial."""
    if not nest.dims or nest.dims[-1].extent <= _WHOLE_LANES or nest.lane is not None:
        return nest
    last = nest.dims[-1]
    chunk = Var(f"{last.name}c", -(-last.extent // LANES))
    lane = Var(f"{last.name}l", LANES)
    position = as_index(chunk) * LANES + lane
    result = _substitute(nest, (*nest.dims[:-1], chunk, lane), {last: position})
    if last.extent % LANES == 0:
        return result
    return replace(result, bound=Condition(position, 0, last.extent), lane=lane, is_exact=True)


# --- units ---------------------------------------------------------------------------------------


def _units(nest: Nest) -> Section:
    wanted = max(1, min(MAX_UNITS, nest.num_operations // UNIT_OPERATIONS))
    dims = list(nest.dims)
    unit_vars: list[Var] = []
    product = 1
    extents: dict[Var, Index] = {var: Index((), var.extent) for var in dims}
    while dims and product < wanted:
        var = dims[0]
        need = -(-wanted // product)
        is_last = len(dims) == 1 and nest.is_vector
        if var is nest.lane or (is_last and var.extent <= _WHOLE_LANES):
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
            nest = _substitute(
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


# --- loops ---------------------------------------------------------------------------------------


def _loops(nest: Nest, dims: Sequence[Var], extents: dict[Var, Index]) -> tuple[Statement, ...]:
    last = dims[-1] if dims and nest.is_vector else None
    outer = list(dims[:-1]) if last is not None else list(dims)
    if last is not None and last is nest.lane and nest.bound is not None:
        body = _bounded_lanes(nest, last, nest.bound)
    elif last is not None and not _has_state(nest):
        body = (Loop(last, extents[last], _emits(nest.stages), "vector"),)
    else:
        body = tuple(_stages(nest.stages, last, extents[last] if last else None))
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
        if _has_state(nest):
            return tuple(_stages(nest.stages, lane, extent))
        return (Loop(lane, extent, _emits(nest.stages), "vector"),)

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


def _emits(stages: Sequence[Stage]) -> tuple[Statement, ...]:
    found: list[Statement] = []
    for stage in stages:
        assert isinstance(stage, Emit)
        stores = tuple(Store(s.buffer, s.offset, s.value) for s in stage.stores)
        conditions = tuple(c for c in stage.conditions if not c.is_always_true)
        found.extend([If(conditions, stores)] if conditions else stores)
    return tuple(found)


def _stages(stages: Sequence[Stage], lane: Var | None, extent: Index | None) -> list[Statement]:
    """All stages at one point, or at `extent` lanes at once."""
    names = frozenset(
        name
        for stage in stages
        if not isinstance(stage, Emit | EmitTile)
        for name in (
            (stage.name,) if isinstance(stage, Reduce) else (stage.value_name, stage.index_name)
        )
    )
    found: list[Statement] = []
    for stage in stages:
        match stage:
            case Reduce() if lane is None and stage.variables and _is_splittable(stage):
                found.extend(_split_reduction(stage))
            case Reduce():
                found.extend(_reduction(stage, lane, extent, names))
            case ArgBest():
                found.extend(_arg_best(stage, lane, extent, names))
            case Emit():
                found.extend(_emit(stage, lane, extent, names))
            case EmitTile():
                found.append(
                    CopyTile(
                        stage.target, stage.target_offset, stage.target_stride,
                        stage.source, stage.source_offset, stage.source_stride,
                    )
                )  # fmt: skip
    return found


def _over_lanes(
    body: Sequence[Statement], lane: Var | None, extent: Index | None
) -> list[Statement]:
    if lane is None or extent is None:
        return list(body)
    return [Loop(lane, extent, tuple(body), "lanes")]


def _at(value: Value, names: frozenset[str], lane: Var | None) -> Value:
    return value if lane is None else bind_locals(value, names, as_index(lane))


def _nested(
    variables: Sequence[Var], conditions: Sequence[Condition], body: Sequence[Statement]
) -> list[Statement]:
    """Loops around a body; every condition is tested as far out as its variables allow."""
    result = list(body)
    open_ = [c for c in conditions if not c.is_always_true]
    for number in range(len(variables) - 1, -1, -1):
        var = variables[number]
        here = tuple(c for c in open_ if var in c.index.variables())
        open_ = [c for c in open_ if var not in c.index.variables()]
        if here:
            result = [If(here, tuple(result))]
        result = [Loop(var, Index((), var.extent), tuple(result))]
    return [If(tuple(open_), tuple(result))] if open_ else result


def _combine(op: str, a: Value, b: Value, dtype: DataType) -> Value:
    compute = DataType.FLOAT32 if dtype is DataType.FLOAT32 else DataType.INT64
    return Apply(Binary(op, Input(0), Input(1)), (a, b), compute)


def _reduction(
    stage: Reduce, lane: Var | None, extent: Index | None, names: frozenset[str]
) -> list[Statement]:
    size = lane.extent if lane is not None else 1
    target = Local(stage.name, stage.dtype, as_index(lane) if size > 1 and lane else None)
    start = Assign(target, Literal(stage.init, stage.dtype))
    value = convert(_at(stage.value, names, lane if size > 1 else None), stage.dtype)
    in_lane = tuple(c for c in stage.conditions if lane in c.index.variables())
    outside = tuple(c for c in stage.conditions if c not in in_lane)
    update = guarded(in_lane, _combine(stage.op, target, value, stage.dtype), target)
    step = _over_lanes([Assign(target, update)], lane, extent)
    return [
        Declare(stage.name, stage.dtype, size),
        *_over_lanes([start], lane, extent),
        *_nested(stage.variables, outside, step),
    ]


def _is_splittable(stage: Reduce) -> bool:
    return stage.variables[-1].extent >= 2 * SPLIT_LANES[1]


def _split_reduction(stage: Reduce) -> list[Statement]:
    """Partial results per lane of the last variable, then halves joined in a fixed order."""
    last = stage.variables[-1]
    wide, narrow = SPLIT_LANES
    size = wide if last.extent >= 4 * wide else narrow
    lane = Var(f"{last.name}l", size)
    block = Var(f"{last.name}b", last.extent // size)
    parts = f"{stage.name}p"
    part = Local(parts, stage.dtype, as_index(lane))

    def step(position: Index, lanes: int) -> Statement:
        inner = stage.value.substitute({last: position})
        conditions = tuple(c.substitute({last: position}) for c in stage.conditions)
        combined = _combine(stage.op, part, convert(inner, stage.dtype), stage.dtype)
        body = Assign(part, guarded(conditions, combined, part))
        return Loop(lane, Index((), lanes), (body,), "lanes")

    body: list[Statement] = [
        Loop(block, Index((), block.extent), (step(as_index(block) * size + lane, size),))
    ]
    rest = last.extent % size
    if rest:
        body.append(step(as_index(lane) + block.extent * size, rest))
    result: list[Statement] = [
        Declare(parts, stage.dtype, size),
        Loop(lane, Index((), size), (Assign(part, Literal(stage.init, stage.dtype)),), "lanes"),
        *_nested(stage.variables[:-1], (), body),
    ]
    half = size // 2
    while half:
        other = Local(parts, stage.dtype, as_index(lane) + half)
        joined = Assign(part, _combine(stage.op, part, other, stage.dtype))
        result.append(Loop(lane, Index((), half), (joined,), "lanes"))
        half //= 2
    total = Local(stage.name, stage.dtype)
    first = Local(parts, stage.dtype, Index())
    return [*result, Declare(stage.name, stage.dtype), Assign(total, first)]


def _arg_best(
    stage: ArgBest, lane: Var | None, extent: Index | None, names: frozenset[str]
) -> list[Statement]:
    size = lane.extent if lane is not None else 1
    at = as_index(lane) if size > 1 and lane is not None else None
    best = Local(stage.value_name, stage.value.dtype, at)
    where = Local(stage.index_name, DataType.INT64, at)
    is_float = stage.value.dtype is DataType.FLOAT32
    compute = DataType.FLOAT32 if is_float else DataType.INT64
    value = _at(stage.value, names, lane if size > 1 else None)
    better = Apply(Binary(stage.comparison, Input(0), Input(1)), (value, best), compute)
    test: Value = convert(better, DataType.INT64)
    if stage.eligible is not None:
        eligible = _at(stage.eligible, names, lane if size > 1 else None)
        both = Binary("and", Input(0), Input(1))
        test = Apply(both, (test, eligible), DataType.INT64)
    chosen = Local(f"{stage.index_name}_is_new", DataType.INT64)
    pick = Select(Input(0), Input(1), Input(2))
    position = FromIndex(as_index(stage.variable))
    step: list[Statement] = [
        Declare(chosen.name, DataType.INT64),
        Assign(chosen, test),
        Assign(where, Apply(pick, (chosen, position, where), DataType.INT64)),
        Assign(best, Apply(pick, (chosen, value, best), compute)),
    ]
    start = [
        Assign(best, Literal(stage.start, stage.value.dtype)),
        Assign(where, Literal(-1, DataType.INT64)),
    ]
    return [
        Declare(best.name, best.dtype, size),
        Declare(where.name, where.dtype, size),
        *_over_lanes(start, lane, extent),
        *_nested((stage.variable,), (), _over_lanes(step, lane, extent)),
    ]


def _emit(
    stage: Emit, lane: Var | None, extent: Index | None, names: frozenset[str]
) -> list[Statement]:
    size = lane.extent if lane is not None else 1
    stores: list[Statement] = [
        Store(s.buffer, s.offset, _at(s.value, names, lane if size > 1 else None))
        for s in stage.stores
    ]
    in_lane = tuple(
        c for c in stage.conditions if lane in c.index.variables() and not c.is_always_true
    )
    outside = tuple(c for c in stage.conditions if c not in in_lane)
    if in_lane:
        stores = [If(in_lane, tuple(stores))]
    if lane is None and stage.variables:
        *outer, last = stage.variables
        inner = tuple(c for c in outside if last in c.index.variables())
        if inner:
            stores = [If(inner, tuple(stores))]
        rest = [c for c in outside if c not in inner]
        return _nested(outer, rest, [Loop(last, Index((), last.extent), tuple(stores), "vector")])
    return _nested(stage.variables, outside, _over_lanes(stores, lane, extent))
