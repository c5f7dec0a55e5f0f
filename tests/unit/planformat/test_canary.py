"""Canary inputs are fixed bytes; sampled outputs are compared within tolerances."""

from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest

from planformat.canary import canary_input, compare_output, sample_output
from planformat.datatypes import DataType

NUMPY = {
    DataType.FLOAT32: "<f4",
    DataType.FLOAT16: "<f2",
    DataType.FLOAT64: "<f8",
    DataType.INT8: "<i1",
    DataType.UINT8: "<u1",
    DataType.INT16: "<i2",
    DataType.UINT16: "<u2",
    DataType.INT32: "<i4",
    DataType.UINT32: "<u4",
    DataType.INT64: "<i8",
    DataType.UINT64: "<u8",
    DataType.BOOL: "<u1",
}


def stream(seed: int, binding_index: int, count: int) -> np.ndarray:
    key = b"edgeplan canary 1\0" + struct.pack("<QI", seed, binding_index)
    return np.frombuffer(hashlib.shake_128(key).digest(count), np.uint8).astype(np.int64)


@pytest.mark.parametrize("dtype", DataType)
def test_values_follow_the_specification(dtype):
    data = canary_input(7, 2, 1000, dtype)
    assert len(data) == 1000 * dtype.size_bytes
    raw = stream(7, 2, 1000)
    if dtype is DataType.BFLOAT16:
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        values = wide.view(np.float32)
    else:
        values = np.frombuffer(data, NUMPY[dtype])
    if dtype.is_float:
        expected = (raw - 128) / 128
        assert expected.min() >= -1
        assert expected.max() <= 127 / 128
    else:
        expected = raw & (1 if dtype is DataType.BOOL else 7)
    assert np.array_equal(values.astype(np.float64), expected)


def test_literal_bytes():
    assert canary_input(0, 0, 4, DataType.FLOAT32).hex() == "0000943e0000583f0000f03d0000d03e"
    assert canary_input(0, 0, 4, DataType.INT16).hex() == "0500040007000400"


def test_seed_and_binding_change_the_values_and_length_does_not():
    base = canary_input(1, 0, 100, DataType.FLOAT32)
    assert canary_input(1, 0, 50, DataType.FLOAT32) == base[:200]
    assert canary_input(2, 0, 100, DataType.FLOAT32) != base
    assert canary_input(1, 1, 100, DataType.FLOAT32) != base
    assert canary_input(1, 0, 0, DataType.FLOAT32) == b""


@pytest.mark.parametrize("stride", [1, 3, 10, 100])
@pytest.mark.parametrize("dtype", [DataType.FLOAT32, DataType.INT64, DataType.FLOAT16])
def test_samples(dtype, stride):
    values = np.arange(10).astype(NUMPY[dtype])
    assert sample_output(values.tobytes(), stride, dtype) == values[::stride].tobytes()


def compare(expected, actual, dtype=DataType.FLOAT32, absolute=0.0, relative=0.0):
    return compare_output(
        np.asarray(expected, NUMPY[dtype]).tobytes(),
        np.asarray(actual, NUMPY[dtype]).tobytes(),
        dtype,
        absolute_tolerance=absolute,
        relative_tolerance=relative,
    )


def test_tolerances():
    assert compare([1, 2], [1, 2]) is None
    assert compare([1, 2], [1, 2.5], absolute=0.5) is None
    assert compare([1, -2], [1, -2.5], relative=0.25) is None
    difference = compare([1, 2, 3], [1, 2.75, 9], absolute=0.5)
    assert (difference.index, difference.expected, difference.actual) == (1, 2.0, 2.75)
    assert compare([3], [4], DataType.INT64).actual == 4
    assert compare([1], [0], DataType.BOOL).index == 0
    assert compare([1.5], [1.25], DataType.FLOAT16, absolute=0.25) is None


def test_values_that_are_not_finite():
    nan, inf = math.nan, math.inf
    assert compare([nan, inf, -inf], [nan, inf, -inf]) is None
    quiet = struct.pack("<I", 0x7FC00001)
    same = compare_output(
        quiet, struct.pack("<f", nan), DataType.FLOAT32, absolute_tolerance=0, relative_tolerance=0
    )
    assert same is None
    for expected, actual in [(nan, 1), (1, nan), (inf, 1), (1, inf), (inf, -inf), (inf, nan)]:
        assert compare([expected], [actual], absolute=1e30, relative=1e30) is not None


def test_bfloat16():
    def bits(*values: float) -> bytes:
        return b"".join(struct.pack("<f", value)[2:] for value in values)

    difference = compare_output(
        bits(1, 2), bits(1, 3), DataType.BFLOAT16, absolute_tolerance=0.5, relative_tolerance=0
    )
    assert difference is not None
    assert (difference.index, difference.expected, difference.actual) == (1, 2.0, 3.0)
