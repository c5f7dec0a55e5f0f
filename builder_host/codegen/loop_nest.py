"""Loop-nest IR: what generated kernels are made of before they become C or CUDA C++.

A kernel body is a tree of statements over buffers. Scalars are typed; a scalar expression of
`builder_host.expressions` is one node (`Apply`). Nothing here knows a target language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal as OneOf

from builder_host.codegen.indices import Index, Var
from builder_host.expressions import Expr
from planformat.datatypes import DataType


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that a kernel reads or writes.

    Attributes:
        name: unique in a kernel.
        dtype: element type.
        argument: position in the kernel's argument array, None for a table.
        table: values of a constant table that is part of the code.
        lanes: channel block of a blocked layout: its padded lanes may be read and overwritten.
        slack: elements that can be read past the last one (packed constants).
    """

    name: str
    dtype: DataType
    argument: int | None = None
    table: tuple[int | float, ...] = ()
    lanes: int = 1
    slack: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """low <= index < high."""

    index: Index
    low: int
    high: int

    @property
    def is_always_true(self) -> bool:
        """Whether the ranges of the variables prove it."""
        low, high = self.index.bounds()
        return self.low <= low and high < self.high

    def substitute(self, replacements: Mapping[Var, Index]) -> Condition:
        """Replace variables."""
        return Condition(self.index.substitute(replacements), self.low, self.high)


# --- scalars ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Element of a buffer, in the buffer's type."""

    buffer: Buffer
    offset: Index

    @property
    def dtype(self) -> DataType:
        """Element type of the buffer."""
        return self.buffer.dtype

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables."""
        return Load(self.buffer, self.offset.substitute(replacements))

    def variables(self) -> frozenset[Var]:
        """Loop variables that the value depends on."""
        return self.offset.variables()


@dataclass(frozen=True, slots=True)
class Literal:
    """A number; infinities and NaN are legal for floats."""

    value: float
    dtype: DataType

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Nothing to replace."""
        del replacements
        return self

    def variables(self) -> frozenset[Var]:
        """None."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class FromIndex:
    """An index as an INT64 scalar."""

    index: Index

    @property
    def dtype(self) -> DataType:
        """INT64."""
        return DataType.INT64

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables."""
        return FromIndex(self.index.substitute(replacements))

    def variables(self) -> frozenset[Var]:
        """Loop variables of the index."""
        return self.index.variables()


@dataclass(frozen=True, slots=True)
class Local:
    """A local scalar, or one element of a local array when `index` is given."""

    name: str
    dtype: DataType
    index: Index | None = None

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables of the index."""
        if self.index is None:
            return self
        return replace(self, index=self.index.substitute(replacements))

    def variables(self) -> frozenset[Var]:
        """Loop variables of the index."""
        return frozenset() if self.index is None else self.index.variables()


@dataclass(frozen=True, slots=True)
class Apply:
    """A scalar expression. FLOAT32 computes in float32, INT64 in integers."""

    expr: Expr
    args: tuple[Value, ...]
    dtype: DataType

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables in the arguments."""
        return replace(self, args=tuple(a.substitute(replacements) for a in self.args))

    def variables(self) -> frozenset[Var]:
        """Those of the arguments."""
        return frozenset().union(*(a.variables() for a in self.args))


@dataclass(frozen=True, slots=True)
class Convert:
    """Another type: floats truncate to integers (NaN gives 0), integers wrap, BOOL is x != 0."""

    x: Value
    dtype: DataType

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables."""
        return replace(self, x=self.x.substitute(replacements))

    def variables(self) -> frozenset[Var]:
        """Those of the operand."""
        return self.x.variables()


@dataclass(frozen=True, slots=True)
class Guarded:
    """`value` where all conditions hold, else `otherwise`; only one of the two is evaluated."""

    conditions: tuple[Condition, ...]
    value: Value
    otherwise: Value

    @property
    def dtype(self) -> DataType:
        """Type of both branches."""
        return self.value.dtype

    def substitute(self, replacements: Mapping[Var, Index]) -> Value:
        """Replace variables."""
        conditions = tuple(c.substitute(replacements) for c in self.conditions)
        return guarded(
            conditions,
            self.value.substitute(replacements),
            self.otherwise.substitute(replacements),
        )

    def variables(self) -> frozenset[Var]:
        """Those of the conditions and of both branches."""
        of_conditions = frozenset[Var]().union(*(c.index.variables() for c in self.conditions))
        return of_conditions | self.value.variables() | self.otherwise.variables()


Value = Load | Literal | FromIndex | Local | Apply | Convert | Guarded


def guarded(conditions: tuple[Condition, ...], value: Value, otherwise: Value) -> Value:
    """`Guarded` without the conditions that always hold; `value` itself when none is left."""
    open_ = tuple(c for c in conditions if not c.is_always_true)
    return Guarded(open_, value, otherwise) if open_ else value


def convert(value: Value, dtype: DataType) -> Value:
    """`value` as another type; itself when it has that type."""
    return value if value.dtype is dtype else Convert(value, dtype)


# --- statements ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declare:
    """A local array (extent > 1) or scalar without a value yet."""

    name: str
    dtype: DataType
    extent: int = 1


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a local a value."""

    target: Local
    value: Value


@dataclass(frozen=True, slots=True)
class Store:
    """Write an element; the value is converted to the buffer's type."""

    buffer: Buffer
    offset: Index
    value: Value


@dataclass(frozen=True, slots=True)
class CopyTile:
    """Copy a square of one vector by one vector of FLOAT32, transposed.

    target[target_offset + r * target_stride + c] = source[source_offset + c * source_stride + r]
    """

    target: Buffer
    target_offset: Index
    target_stride: int
    source: Buffer
    source_offset: Index
    source_stride: int


@dataclass(frozen=True, slots=True)
class Loop:
    """`body` for var = 0 .. extent - 1.

    Attributes:
        kind: `serial`; `vector`: no iteration depends on another one, so that a compiler may
            vectorise it (and it pays); `lanes`: the same over elements of local arrays.
    """

    var: Var
    extent: Index
    body: tuple[Statement, ...]
    kind: OneOf["serial", "vector", "lanes"] = "serial"


@dataclass(frozen=True, slots=True)
class If:
    """`body` where all conditions hold, else `otherwise`."""

    conditions: tuple[Condition, ...]
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


Statement = Declare | Assign | Store | CopyTile | Loop | If


@dataclass(frozen=True, slots=True)
class Section:
    """A range of work units: unit u of `num_units` binds `unit_vars` (the last varies fastest)."""

    unit_vars: tuple[Var, ...]
    body: tuple[Statement, ...]

    @property
    def num_units(self) -> int:
        """Product of the extents."""
        count = 1
        for var in self.unit_vars:
            count *= var.extent
        return count

    @property
    def num_operations(self) -> int:
        """Assignments and stores of all units, every condition taken as true."""
        return self.num_units * _num_operations(self.body)


def _num_operations(body: tuple[Statement, ...]) -> int:
    count = 0
    for statement in body:
        match statement:
            case Loop(extent=extent, body=inner):
                count += max(extent.bounds()[1], 0) * _num_operations(inner)
            case If(body=inner, otherwise=otherwise):
                count += max(_num_operations(inner), _num_operations(otherwise))
            case Assign() | Store():
                count += 1
            case _:
                continue
    return count


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch: sections of independent units, one after the other in unit numbers."""

    symbol: str
    sections: tuple[Section, ...]

    @property
    def num_units(self) -> int:
        """Units of all sections."""
        return sum(section.num_units for section in self.sections)


def values_in(value: Value) -> Iterator[Value]:
    """The value and everything below it, indices included."""
    yield value
    match value:
        case Apply(args=args):
            for argument in args:
                yield from values_in(argument)
        case Convert(x=x):
            yield from values_in(x)
        case Guarded(value=inner, otherwise=otherwise):
            yield from values_in(inner)
            yield from values_in(otherwise)
        case _:
            return
