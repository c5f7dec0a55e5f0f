"""Bounds of expressions against sampled values."""

from __future__ import annotations

import math

from builder_host.codegen.value_range import fits, value_range
from builder_host.expressions import Binary, Const, Input, Select, Unary, clip
from planformat.datatypes import DataType

X = Input(0)


def test_clips_roundings_and_selections_bound_a_value() -> None:
    assert value_range(clip(Unary("round", X), -128.0, 127.0)) == (-128.0, 127.0)
    assert value_range(Unary("round", clip(X, 0.2, 254.7))) == (0.0, 255.0)
    assert value_range(Binary("max", X, Const(0.0))) == (0.0, math.inf)
    chosen = Select(Binary("ge", X, Const(0.0)), clip(X, 0.0, 9.0), Const(-3.0))
    assert value_range(chosen) == (-3.0, 9.0)


def test_what_is_not_followed_is_unbounded() -> None:
    for expr in (X, Unary("sigmoid", X), Binary("mul", clip(X, 0.0, 1.0), Const(2.0))):
        assert value_range(expr) == (-math.inf, math.inf)
    assert value_range(Const(math.nan)) == (-math.inf, math.inf)


def test_fits_only_the_range_of_the_type() -> None:
    signed, unsigned = clip(X, -128.0, 127.0), clip(X, 0.0, 255.0)
    assert fits(signed, DataType.INT8)
    assert not fits(signed, DataType.UINT8)
    assert fits(unsigned, DataType.UINT8)
    assert not fits(unsigned, DataType.INT8)
    assert not fits(signed, DataType.INT16)
