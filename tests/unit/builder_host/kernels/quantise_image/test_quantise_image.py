"""quantise_image: equal to numpy in float32, byte by byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.integer_kernels import (
    F32,
    I8,
    NUMPY_TYPES,
    TARGETS,
    U8,
    evaluate_float32,
    needs,
    requantised,
    run_tactic,
)

from builder_host.expressions import Binary, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.quantise_image.family import FAMILY
from builder_host.layouts import dense_layout
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

CENTRED = Binary("mul", Binary("sub", Input(0), Input(1)), Input(2))


def problem_of(
    name: str, channels: int, x: DataType, y: DataType, *, centred: bool, workers: int = 1
) -> Problem:
    """Two images of 9x13 pixels; `centred` subtracts a mean and multiplies, both per channel."""
    shape = (2, channels, 9, 13)
    inputs = [dense_layout(TensorType(shape, x))]
    if centred:
        inputs += [dense_layout(TensorType((channels, 1, 1))), dense_layout(TensorType((1,)))]
    expr = requantised(CENTRED if centred else Input(0), 0.9, y)
    output = dense_layout(TensorType(shape, y), TARGETS[name].blocked_format)
    constant = (False,) + (True,) * (len(inputs) - 1)
    params = PointwiseParams(expr, y)
    return Problem("pointwise", params, tuple(inputs), constant, (output,), None, workers)


@pytest.mark.parametrize(
    "name",
    [
        "avx512-vnni",
        "avx2",
        pytest.param("neon", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("channels", "x", "y", "centred", "workers"),
    [
        (3, F32, I8, False, 1),
        (3, U8, I8, True, 4),
        (4, F32, U8, True, 1),
        (1, I8, U8, False, 3),
    ],
)
def test_gives_the_exact_result(
    name: str, channels: int, x: DataType, y: DataType, centred: bool, workers: int
) -> None:
    needs(name)
    problem = problem_of(name, channels, x, y, centred=centred, workers=workers)
    rng = np.random.default_rng(0)
    low, high = {U8: (0, 255), I8: (-128, 127), F32: (-60, 400)}[x]
    values = rng.uniform(low, high, problem.inputs[0].shape)
    inputs = [values.astype(NUMPY_TYPES[x])]
    if centred:
        inputs += [rng.uniform(90, 130, (channels, 1, 1)).astype(np.float32)]
        inputs += [np.asarray([1.1], np.float32)]
    got = run_tactic(FAMILY, problem, FAMILY.tactics(problem, None)[0], TARGETS[name], inputs)
    wanted = evaluate_float32(problem.params.expr, inputs)
    np.testing.assert_array_equal(got, wanted)
    assert len(np.unique(wanted)) > 30


def test_does_not_apply_to_five_channels_gaps_or_loose_bounds() -> None:
    target = TARGETS["avx2"]
    good = problem_of("avx2", 3, F32, I8, centred=False)
    assert FAMILY.applies(good, target)
    assert not FAMILY.applies(problem_of("avx2", 5, F32, I8, centred=False), target)
    loose = replace(good, params=PointwiseParams(Input(0), I8))
    assert not FAMILY.applies(loose, target)
    x = good.inputs[0]
    gaps = replace(x, strides=(*x.strides[:2], x.strides[2] + 1, 1))
    assert not FAMILY.applies(replace(good, inputs=(gaps,)), target)
    assert not FAMILY.applies(good, TARGETS["avx512"])
