"""Stages of a nest -> statements at one point, or at some lanes of the last dimension at once."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Condition,
    CopyTile,
    Declare,
    FromIndex,
    If,
    Literal,
    Local,
    Loop,
    Statement,
    Store,
    Value,
    convert,
    guarded,
)
from builder_host.codegen.nest import ArgBest, Emit, EmitTile, Reduce, Stage, bind_locals
from builder_host.expressions import Binary, Input, Select
from planformat.datatypes import DataType

SPLIT_LANES = (64, 16)  # partial results of a reduction along contiguous memory: long, short


def emits(stages: Sequence[Stage]) -> tuple[Statement, ...]:
    """Stores of stages that all are `Emit`, for a loop over lanes that the caller makes."""
    found: list[Statement] = []
    for stage in stages:
        assert isinstance(stage, Emit)
        stores = tuple(Store(s.buffer, s.offset, s.value) for s in stage.stores)
        conditions = tuple(c for c in stage.conditions if not c.is_always_true)
        found.extend([If(conditions, stores)] if conditions else stores)
    return tuple(found)


def stage_statements(
    stages: Sequence[Stage], lane: Var | None, extent: Index | None
) -> list[Statement]:
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
