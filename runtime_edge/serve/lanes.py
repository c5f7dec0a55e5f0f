"""Which profile a request's shapes belong to, and whether requests may share an execution.

A plan's profiles form lanes. When every binding's first dimension is the same number within each
profile and nothing else differs between profiles, that dimension is a batch: there is one lane, and
requests of any number of rows may be put together, padded or split. Otherwise each profile is a
lane of its own, and a request must have its exact shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planformat.datatypes import TensorFormat
from planformat.plan import Binding, Profile
from planformat.tensors import storage_elems

Shape = tuple[int, ...]
MAX_SPLITS = 64
"""Executions into which one request may be split."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Profiles that serve requests of one kind.

    Attributes:
        profiles: names by ascending rows; rows: first dimension of each, all 1 without a batch.
        shapes: of all bindings, of the first profile, as clients see them.
        is_batched: the first dimension is a batch.
    """

    profiles: tuple[str, ...]
    rows: tuple[int, ...]
    shapes: tuple[Shape, ...]
    is_batched: bool

    @property
    def max_rows(self) -> int:
        """Rows of the largest profile."""
        return self.rows[-1]

    def rows_of(self, inputs: Sequence[Shape]) -> int | None:
        """Rows of a request with these input shapes, in binding order; None when it is not ours."""
        own = self.shapes[: len(inputs)]
        if not self.is_batched:
            return 1 if tuple(inputs) == own else None
        if any(len(a) != len(b) or a[1:] != b[1:] for a, b in zip(inputs, own, strict=True)):
            return None
        rows = {shape[0] for shape in inputs}
        if len(rows) != 1:
            return None
        (num,) = rows
        return num if 1 <= num <= MAX_SPLITS * self.max_rows else None

    def output_shape(self, index: int, rows: int) -> Shape:
        """Shape of binding `index` in an answer."""
        shape = self.shapes[index]
        return (rows, *shape[1:]) if self.is_batched else shape


def client_shape(binding: Binding, shape: Shape) -> Shape:
    """Shape of a binding as clients see it: flat in blocked formats."""
    if binding.format is TensorFormat.LINEAR:
        return shape
    return (storage_elems(shape, binding.format),)


def find_lanes(bindings: Sequence[Binding], profiles: Sequence[Profile]) -> tuple[Lane, ...]:
    """The lanes of a plan, in the order of its profiles."""
    tables = [
        tuple(client_shape(b, s) for b, s in zip(bindings, p.shapes, strict=True)) for p in profiles
    ]
    if _is_batched(bindings, tables):
        order = sorted(range(len(tables)), key=lambda i: tables[i][0][0])
        names = tuple(profiles[i].name for i in order)
        return (Lane(names, tuple(tables[i][0][0] for i in order), tables[order[0]], True),)
    return tuple(
        Lane((p.name,), (1,), table, False) for p, table in zip(profiles, tables, strict=True)
    )


def metadata_shape(lanes: Sequence[Lane], index: int) -> list[int]:
    """Shape of a binding for metadata: -1 where requests may differ."""
    if lanes[0].is_batched:
        return [-1, *lanes[0].shapes[index][1:]]
    shapes = [lane.shapes[index] for lane in lanes]
    if len({len(shape) for shape in shapes}) > 1:
        return [-1]
    return [column[0] if len(set(column)) == 1 else -1 for column in zip(*shapes, strict=True)]


def _is_batched(bindings: Sequence[Binding], tables: Sequence[tuple[Shape, ...]]) -> bool:
    if len(tables) < 2 or any(b.format is not TensorFormat.LINEAR for b in bindings):
        return False
    if any(not shape for table in tables for shape in table):
        return False
    firsts = [{shape[0] for shape in table} for table in tables]
    if any(len(values) != 1 for values in firsts):
        return False
    if len(set().union(*firsts)) != len(tables):
        return False
    rests = {tuple(shape[1:] for shape in table) for table in tables}
    return len(rests) == 1
