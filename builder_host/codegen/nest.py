"""A computation before it is scheduled: independent iterations, each running a few stages.

`dims` are independent of each other; for each point the stages run in order: reductions give
named scalars, `Emit` writes results. The scheduler (`loop_schedule`) turns this into loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from builder_host.codegen.indices import (
    Dynamic,
    FloorDiv,
    Index,
    Minimum,
    Modulo,
    Var,
    minimum,
)
from builder_host.codegen.loop_nest import (
    Apply,
    Buffer,
    Condition,
    Convert,
    FromIndex,
    Guarded,
    Load,
    Local,
    Value,
    values_in,
)
from planformat.datatypes import DataType


@dataclass(frozen=True, slots=True)
class Reduce:
    """name = op over all values; later stages read it as `Local(name, dtype)`.

    Attributes:
        op: `add`, `mul`, `max` or `min` (binary operation names of `expressions`).
        init: value of the empty reduction.
        conditions: points where one fails are left out.
    """

    name: str
    dtype: DataType
    op: str
    init: float
    value: Value
    variables: tuple[Var, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class ArgBest:
    """The best value along one variable and its position.

    Attributes:
        value_name, index_name: scalars for later stages; the position is INT64.
        comparison: `gt`, `ge`, `lt` or `le`: when a value replaces the best one so far.
        eligible: a value takes part only where this INT64 scalar is not 0 (None: always).
        start: the best value before the first one; it has position -1.
    """

    value_name: str
    index_name: str
    comparison: str
    value: Value
    variable: Var
    start: float
    eligible: Value | None = None


@dataclass(frozen=True, slots=True)
class StoreTo:
    """One element written."""

    buffer: Buffer
    offset: Index
    value: Value


@dataclass(frozen=True, slots=True)
class Emit:
    """Stores, for each value of the variables, where all conditions hold."""

    stores: tuple[StoreTo, ...]
    variables: tuple[Var, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class EmitTile:
    """A transposed square of one vector by one vector; made by the scheduler only.

    See `loop_nest.CopyTile`; `num_elems` is for the cost of a unit.
    """

    target: Buffer
    target_offset: Index
    target_stride: int
    source: Buffer
    source_offset: Index
    source_stride: int
    num_elems: int


Stage = Reduce | ArgBest | Emit | EmitTile


@dataclass(frozen=True, slots=True)
class Nest:
    """One computation.

    Attributes:
        dims: independent iterations, outermost first.
        stages: run in order at each point.
        bound: the last block of channels may be partial: only points where this holds exist.
            Others may be computed when that does no harm, unless is_exact.
        lane: the variable within a channel block that `bound` cuts.
        is_exact: no point outside the bound may be written.
        is_vector: the last dim is the vector dimension (else the last reduction variable is).
    """

    dims: tuple[Var, ...]
    stages: tuple[Stage, ...]
    bound: Condition | None = None
    lane: Var | None = None
    is_exact: bool = False
    is_vector: bool = True

    @property
    def num_operations(self) -> int:
        """Points times the sizes of the stages."""
        points = 1
        for var in self.dims:
            points *= var.extent
        per_point = 0
        for stage in self.stages:
            size = stage.num_elems if isinstance(stage, EmitTile) else 1
            for var in stage_variables(stage):
                size *= var.extent
            per_point += size
        return points * per_point


def stage_variables(stage: Stage) -> tuple[Var, ...]:
    """Inner loop variables of a stage."""
    match stage:
        case ArgBest(variable=variable):
            return (variable,)
        case EmitTile():
            return ()
        case _:
            return stage.variables


def substitute_stage(stage: Stage, replacements: Mapping[Var, Index]) -> Stage:
    """Replace variables everywhere in a stage (not its own loop variables)."""
    match stage:
        case Reduce(value=value, conditions=conditions):
            return replace(
                stage,
                value=value.substitute(replacements),
                conditions=tuple(c.substitute(replacements) for c in conditions),
            )
        case ArgBest(value=value, eligible=eligible):
            return replace(
                stage,
                value=value.substitute(replacements),
                eligible=None if eligible is None else eligible.substitute(replacements),
            )
        case EmitTile():
            return replace(
                stage,
                target_offset=stage.target_offset.substitute(replacements),
                source_offset=stage.source_offset.substitute(replacements),
            )
        case Emit(stores=stores, conditions=conditions):
            return replace(
                stage,
                stores=tuple(
                    StoreTo(
                        s.buffer,
                        s.offset.substitute(replacements),
                        s.value.substitute(replacements),
                    )
                    for s in stores
                ),
                conditions=tuple(c.substitute(replacements) for c in conditions),
            )


def bind_locals(value: Value, names: frozenset[str], lane: Index) -> Value:
    """Turn results of reductions into elements of their lane arrays."""
    match value:
        case Local(name=name, index=None) if name in names:
            return replace(value, index=lane)
        case Apply(args=args):
            return replace(value, args=tuple(bind_locals(a, names, lane) for a in args))
        case Convert(x=x):
            return replace(value, x=bind_locals(x, names, lane))
        case Guarded(conditions=conditions, value=inner, otherwise=otherwise):
            return replace(
                value,
                conditions=tuple(
                    replace(c, index=_bind_in_index(c.index, names, lane)) for c in conditions
                ),
                value=bind_locals(inner, names, lane),
                otherwise=bind_locals(otherwise, names, lane),
            )
        case Load(offset=offset):
            return replace(value, offset=_bind_in_index(offset, names, lane))
        case FromIndex(index=index):
            return FromIndex(_bind_in_index(index, names, lane))
        case _:
            return value


def _bind_in_index(index: Index, names: frozenset[str], lane: Index) -> Index:
    result = Index((), index.const)
    for atom, factor in index.terms:
        bound: Index = Index(((atom, 1),))
        match atom:
            case Dynamic(value=value, low=low, high=high):
                bound = Index(((Dynamic(bind_locals(value, names, lane), low, high), 1),))
            case FloorDiv(x=x, divisor=divisor):
                bound = _bind_in_index(x, names, lane) // divisor
            case Modulo(x=x, divisor=divisor):
                bound = _bind_in_index(x, names, lane) % divisor
            case Minimum(a=a, b=b):
                bound = minimum(_bind_in_index(a, names, lane), _bind_in_index(b, names, lane))
            case Var():
                pass
        result = result + bound * factor
    return result


def accesses(stage: Stage) -> Iterator[tuple[Buffer, Index]]:
    """Every buffer access of a stage with its offset."""
    values: list[Value] = []
    match stage:
        case EmitTile():
            yield stage.target, stage.target_offset
            yield stage.source, stage.source_offset
        case Reduce(value=value):
            values.append(value)
        case ArgBest(value=value, eligible=eligible):
            values += [value] if eligible is None else [value, eligible]
        case Emit(stores=stores):
            for store in stores:
                yield store.buffer, store.offset
                values.append(store.value)
    for value in values:
        for part in values_in(value):
            if isinstance(part, Load):
                yield part.buffer, part.offset
                for inner in _dynamic_values(part.offset):
                    for deeper in values_in(inner):
                        if isinstance(deeper, Load):
                            yield deeper.buffer, deeper.offset


def stage_indices(stage: Stage) -> Iterator[Index]:
    """Every index expression of a stage."""
    values: list[Value] = []
    match stage:
        case EmitTile():
            yield stage.target_offset
            yield stage.source_offset
        case Reduce(value=value, conditions=conditions):
            values.append(value)
            yield from (c.index for c in conditions)
        case ArgBest(value=value, eligible=eligible):
            values += [value] if eligible is None else [value, eligible]
        case Emit(stores=stores, conditions=conditions):
            yield from (c.index for c in conditions)
            for store in stores:
                yield store.offset
                values.append(store.value)
    for value in values:
        yield from _value_indices(value)


def _value_indices(value: Value) -> Iterator[Index]:
    for part in values_in(value):
        match part:
            case Load(offset=offset):
                yield offset
            case FromIndex(index=index):
                yield index
            case Guarded(conditions=conditions):
                yield from (c.index for c in conditions)
            case _:
                continue


def _dynamic_values(index: Index) -> Iterator[Value]:
    for atom, _ in index.terms:
        match atom:
            case Dynamic(value=value):
                yield value
            case FloorDiv(x=x) | Modulo(x=x):
                yield from _dynamic_values(x)
            case Minimum(a=a, b=b):
                yield from _dynamic_values(a)
                yield from _dynamic_values(b)
            case Var():
                continue
