"""Pooling kernels against the float64 reference of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, run, runs_here

from builder_host.expressions import Binary, Input, relu
from builder_host.kernels.family import Problem
from builder_host.kernels.pooling.family import FAMILY
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.pooling import DEFINITION, PoolingParams, pooled_extent
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import TensorFormat

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]

# channels, input, window, strides, pads begin, pads end, dilations, rounding
CASES = {
    "3x3s2": (19, (13, 15), (3, 3), (2, 2), (0, 0), (0, 0), (1, 1), "floor"),
    "3x3s2_ceil": (32, (12, 14), (3, 3), (2, 2), (0, 0), (0, 0), (1, 1), "ceil"),
    "3x3s2_pad": (64, (56, 57), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), "floor"),
    "3x3s1_pad": (48, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), "floor"),
    "2x2s2": (7, (10, 11), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), "ceil"),
    "uneven_pads": (16, (9, 9), (3, 5), (1, 2), (0, 1), (2, 3), (1, 1), "floor"),
    "dilated": (17, (11, 12), (3, 3), (1, 1), (2, 2), (2, 2), (2, 2), "floor"),
    "stride_over_window": (5, (9, 10), (1, 2), (3, 4), (0, 0), (0, 0), (1, 1), "floor"),
    "1xN": (33, (1, 40), (1, 31), (1, 1), (0, 7), (0, 7), (1, 1), "floor"),
    "window_over_input": (3, (4, 3), (6, 5), (1, 1), (3, 2), (3, 2), (1, 1), "floor"),
    "global": (21, (7, 7), (7, 7), (1, 1), (0, 0), (0, 0), (1, 1), "floor"),
    "wide_row": (16, (3, 112), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), "floor"),
}


def params_of(case: tuple, mode: str, include_pad: bool) -> PoolingParams:
    _, extent, window, strides, begin, end, dilations, rounding = case
    spatial = tuple(
        pooled_extent(extent[i], window[i], strides[i], begin[i], end[i], dilations[i], rounding)
        for i in range(2)
    )
    return PoolingParams(mode, window, strides, begin, end, spatial, dilations, include_pad)


def problem_of(params, shape, target, output_format=None, **more) -> Problem:
    x = TensorType(shape)
    y = TensorType((*shape[:2], *params.output_spatial))
    return Problem(
        "pooling",
        params,
        (dense_layout(x, target.blocked_format),),
        (False,),
        (dense_layout(y, output_format or target.blocked_format),),
        **more,
    )


def tolerance(params: PoolingParams, values: np.ndarray) -> float:
    """Max is exact; a mean of n values loses at most (n + 2) roundings of the largest."""
    if params.mode == "max":
        return 0.0
    return (params.window[0] * params.window[1] + 2) * EPS * float(np.abs(values).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["max", "average", "average_pad"])
@pytest.mark.parametrize("name", CASES)
def test_matches_the_reference(name, mode, target):
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    case = CASES[name]
    params = params_of(case, mode.split("_")[0], mode == "average_pad")
    values = np.random.default_rng(1).standard_normal((2, case[0], *case[1])).astype(np.float32)
    expected = DEFINITION.reference(params, [values])[0]
    problem = problem_of(params, values.shape, target)
    tactics = FAMILY.tactics(problem, target)
    assert 1 <= len(tactics) <= 12
    for tactic in tactics if target is AVX512 and mode == "max" else tactics[:1]:
        got = run(FAMILY, problem, tactic, target, [values])
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(params, values))


@pytest.mark.parametrize("channels", [16, 21, 1000])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_global_pooling_to_linear(channels, mode):
    params = params_of((channels, (7, 5), (7, 5), (1, 1), (0, 0), (0, 0), (1, 1), "floor"), mode, 0)
    values = np.random.default_rng(2).standard_normal((3, channels, 7, 5)).astype(np.float32)
    for target in (AVX512, AVX2):
        problem = problem_of(params, values.shape, target, TensorFormat.LINEAR)
        tactic = FAMILY.tactics(problem, target)[0]
        got = run(FAMILY, problem, tactic, target, [values])
        expected = DEFINITION.reference(params, [values])[0]
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(params, values))


def test_nan_in_a_window_gives_nan():
    params = params_of(CASES["3x3s2_pad"], "max", False)
    values = np.zeros((1, 16, 56, 57), np.float32)
    values[0, 3, 10, 11] = np.nan
    problem = problem_of(params, values.shape, AVX512)
    for tactic in FAMILY.tactics(problem, AVX512):
        got = run(FAMILY, problem, tactic, AVX512, [values])
        expected = DEFINITION.reference(params, [values])[0]
        np.testing.assert_array_equal(got, expected)


def test_infinities_of_both_signs():
    """Their sum is NaN, which a tile must not take for a NaN among its inputs."""
    params = params_of(CASES["3x3s1_pad"], "max", False)
    values = np.random.default_rng(4).standard_normal((1, 16, 14, 14)).astype(np.float32)
    values[0, :, 5, 5], values[0, :, 5, 6], values[0, 2] = np.inf, -np.inf, -np.inf
    problem = problem_of(params, values.shape, AVX512)
    expected = DEFINITION.reference(params, [values])[0]
    for tactic in FAMILY.tactics(problem, AVX512):
        got = run(FAMILY, problem, tactic, AVX512, [values])
        np.testing.assert_array_equal(got, expected)


def test_strided_views_and_epilogue():
    """Reads a slice and writes into a concatenation, with a bias, a residual and a ReLU."""
    target = AVX512
    params = params_of(CASES["3x3s1_pad"], "average", False)
    shape = (2, 32, 14, 14)
    wide = (6 * 14 * 14 * 16, 14 * 14 * 16, 14 * 16, 16)
    view = Layout(target.blocked_format, shape, TensorType(shape).dtype, wide)
    bias = dense_layout(TensorType((1, 32, 1, 1)))
    expr = relu(Binary("add", Binary("add", Input(0), Input(1)), Input(2)))
    problem = Problem(
        "pooling", params, (view, bias, view), (False, True, False), (view,), Epilogue(expr, 2), 2
    )
    rng = np.random.default_rng(3)
    values, residual = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    shift = rng.standard_normal((1, 32, 1, 1)).astype(np.float32)
    expected = np.maximum(DEFINITION.reference(params, [values])[0] + shift + residual, 0)
    for tactic in FAMILY.tactics(problem, target):
        got = run(FAMILY, problem, tactic, target, [values, shift, residual])
        np.testing.assert_allclose(got, expected, rtol=0, atol=20 * EPS * 8)


def test_refuses_what_it_cannot_do():
    params = params_of(CASES["3x3s2"], "max", False)
    good = problem_of(params, (1, 19, 13, 15), AVX512)
    assert FAMILY.applies(good, AVX512)
    assert not FAMILY.applies(good, AVX2)
    linear = problem_of(params, (1, 19, 13, 15), AVX512, TensorFormat.LINEAR)
    assert not FAMILY.applies(linear, AVX512)
    cropped = PoolingParams("max", (3, 3), (1, 1), (-1, 0), (0, 0), (10, 13), (1, 1), False)
    assert not FAMILY.applies(problem_of(cropped, (1, 19, 13, 15), AVX512), AVX512)


@pytest.mark.parametrize("mode", ["max", "average"])
def test_compiles_for_neon(mode):
    for name in ("3x3s2", "global", "dilated"):
        case = CASES[name]
        problem = problem_of(params_of(case, mode, True), (1, case[0], *case[1]), NEON)
        for tactic in FAMILY.tactics(problem, NEON):
            compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)
