"""Positions that are known at run time only: wrapped, guarded, and as coordinates."""

from __future__ import annotations

from builder_host.codegen.indices import Dynamic, Index
from builder_host.codegen.loop_nest import Apply, Condition, Value, convert
from builder_host.expressions import Binary, Const, Expr, Input, Select
from planformat.datatypes import DataType

FAR = 2**62  # a bound for positions that nothing is known about


def integer(expr: Expr, *values: Value) -> Value:
    """An INT64 expression of values."""
    return Apply(expr, tuple(convert(v, DataType.INT64) for v in values), DataType.INT64)


def from_end(value: Value, extent: int) -> Value:
    """Negative positions counted from the end of an axis."""
    negative = Binary("lt", Input(0), Const(0.0))
    wrapped = Select(negative, Binary("add", Input(0), Const(float(extent))), Input(0))
    return integer(wrapped, value)


def position(value: Value, extent: int) -> Index:
    """The value as a coordinate that is inside an axis (the caller guards it)."""
    return Index(((Dynamic(value, 0, max(extent - 1, 0)), 1),))


def anywhere(value: Value) -> Index:
    """The value as an index that may be anything."""
    return Index(((Dynamic(value, -FAR, FAR), 1),))


def is_inside(value: Value, extent: int) -> Condition:
    """0 <= value < extent."""
    return Condition(anywhere(value), 0, extent)


def is_true(value: Value) -> Condition:
    """The value is not zero."""
    return Condition(
        Index(((Dynamic(integer(Binary("eq", Input(0), Const(0.0)), value), 0, 1), 1),)), 0, 1
    )
