"""Pointwise kernels between floats and 8 bits: equal to numpy in float32, element by element."""

from __future__ import annotations

import numpy as np
import pytest
from support.integer_kernels import (
    F32,
    I8,
    TARGETS,
    U8,
    evaluate_float32,
    needs,
    requantised,
    run_tactic,
)

from builder_host.expressions import Binary, Const, Expr, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.family import FAMILY
from builder_host.layouts import dense_layout
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

SUM: Expr = Binary("add", Binary("mul", Input(0), Const(0.31)), Input(1))


def problem_of(
    expr: Expr, inputs: tuple[DataType, ...], output: DataType, name: str, *, linear: bool
) -> Problem:
    """A pointwise problem on 2x19x5x7; the inputs row-major when `linear`, the output blocked."""
    blocked = TARGETS[name].blocked_format
    read = TensorFormat.LINEAR if linear else blocked
    shape = (2, 19, 5, 7)
    return Problem(
        "pointwise",
        PointwiseParams(expr, output),
        tuple(dense_layout(TensorType(shape, dtype), read) for dtype in inputs),
        (False,) * len(inputs),
        (dense_layout(TensorType(shape, output), blocked),),
    )


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("output", [I8, U8], ids=lambda t: t.text)
@pytest.mark.parametrize("name", ["avx512-vnni", "avx2"])
def test_quantising_rounds_half_to_even_clips_and_stores_nan_as_zero(
    name: str, output: DataType, linear: bool
) -> None:
    needs(name)
    problem = problem_of(requantised(Input(0), 2.0, output), (F32,), output, name, linear=linear)
    values = np.random.default_rng(0).standard_normal(problem.inputs[0].shape).astype(np.float32)
    values *= 60
    special = [0.25, 0.75, 1.25, -0.25, -0.75, 1e30, -1e30, np.inf, -np.inf, -0.0, np.nan]
    values.reshape(-1)[:11] = special
    got = run_tactic(FAMILY, problem, FAMILY.tactics(problem, None)[0], TARGETS[name], [values])
    low, high = (-128, 127) if output is I8 else (0, 255)
    wanted = np.clip(np.rint(values * np.float32(2)), low, high)
    wanted[np.isnan(wanted)] = 0
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["avx512-vnni", "avx2"])
def test_a_sum_of_two_scales_is_requantised(name: str) -> None:
    needs(name)
    problem = problem_of(requantised(SUM, 0.77, I8), (I8, U8), I8, name, linear=False)
    rng = np.random.default_rng(0)
    shape = problem.inputs[0].shape
    x = rng.integers(-128, 128, shape).astype(np.int8)
    z = rng.integers(0, 256, shape).astype(np.uint8)
    got = run_tactic(FAMILY, problem, FAMILY.tactics(problem, None)[0], TARGETS[name], [x, z])
    np.testing.assert_array_equal(got, evaluate_float32(problem.params.expr, [x, z]))
