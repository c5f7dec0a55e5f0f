"""Transposed copies: square tiles that go through registers, and strips for what is left over."""

from __future__ import annotations

from dataclasses import replace

from builder_host.codegen.indices import Index, Var, as_index
from builder_host.codegen.loop_nest import Condition, Load, Section
from builder_host.codegen.nest import Emit, EmitTile, Nest, StoreTo
from builder_host.codegen.nest_shape import merged_dims, substitute_nest, without_unit_dims
from builder_host.codegen.nest_units import units
from planformat.datatypes import DataType


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


def tiled(nest: Nest, size: int) -> list[Section | Nest] | None:
    """Cut a copy that transposes into tiles of `size` x `size`; None where tiles do not apply.

    Returns:
        Sections of whole tiles and strips, and nests that hold parts without tiles.
    """
    if _copied(nest) is None:
        return None
    if nest.bound is not None and nest.lane is not None:
        if sum(1 for v in nest.dims if nest.bound.index.coefficient(v)) > 2:
            return None  # blocks cut into runs
        parts = _without_bound(nest, nest.bound, nest.lane)
        cut = [tiled(part, size) for part in parts]
        if all(found is None for found in cut):
            return None
        result: list[Section | Nest] = []
        for part, found in zip(parts, cut, strict=True):
            result.extend([part] if found is None else found)
        return result
    nest = merged_dims(without_unit_dims(nest))
    copied = _copied(nest)
    assert copied is not None  # merging leaves a copy a copy
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
    sections: list[Section | Nest] = [
        units(Nest((*others, rows, columns), (tile,), is_vector=False))
    ]
    for var, other, limit in ((b, a, a.extent), (a, b, b.extent - b.extent % size)):
        rest = var.extent % size
        if rest:  # the second strip leaves out the corner that belongs to the first
            edge, whole = Var(f"{var.name}r", rest), Var(other.name, limit)
            shift = {var: as_index(edge) + (var.extent - rest), other: as_index(whole)}
            inner = [whole, edge] if var is a else [edge, whole]
            strip = substitute_nest(nest, [*others, *inner], shift)
            sections.append(units(strip))
    return sections


def _without_bound(nest: Nest, bound: Condition, lane: Var) -> list[Nest]:
    """The full channel blocks, and the partial one as a nest of its own."""
    outer = [v for v in nest.dims if v is not lane and bound.index.coefficient(v)]
    if not outer:  # a single, partial block
        short = Var(lane.name, bound.high)
        dims = [short if v is lane else v for v in nest.dims]
        only = substitute_nest(nest, dims, {lane: as_index(short)})
        return [replace(only, bound=None, lane=None)]
    block = outer[0]
    full, rest = divmod(bound.high, lane.extent)
    whole, short = Var(block.name, full), Var(lane.name, rest)
    found = []
    if full:
        dims = [whole if v is block else v for v in nest.dims]
        found.append(
            replace(substitute_nest(nest, dims, {block: as_index(whole)}), bound=None, lane=None)
        )
    dims = [short if v is lane else v for v in nest.dims if v is not block]
    last = substitute_nest(nest, dims, {block: Index((), full), lane: as_index(short)})
    return [*found, replace(last, bound=None, lane=None)]
