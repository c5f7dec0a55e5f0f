"""Deconvolution kernels against the float64 reference of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, run, runs_here

from builder_host.expressions import Binary, Input, relu
from builder_host.kernels.deconvolution.family import FAMILY
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.deconvolution import DEFINITION, DeconvolutionParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]

# mode, channels, outputs, input, kernel, strides, begin, end, dilations, extra, groups
CASES = {
    "2x2s2": ("dense", 32, 48, (7, 9), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), (0, 0), 1),
    "3x3s2": ("dense", 19, 21, (6, 15), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "3x3s2_nopad": ("dense", 16, 80, (5, 33), (3, 3), (2, 2), (0, 0), (0, 0), (1, 1), (0, 0), 1),
    "4x4s2": ("dense", 33, 16, (8, 30), (4, 4), (2, 2), (1, 1), (1, 1), (1, 1), (0, 0), 1),
    "5x5s3": ("dense", 8, 8, (5, 6), (5, 5), (3, 3), (2, 1), (0, 2), (1, 1), (2, 0), 1),
    "3x3s1": ("dense", 20, 16, (9, 20), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), 1),
    "1x1s3": ("dense", 5, 7, (4, 5), (1, 1), (3, 3), (0, 0), (0, 0), (1, 1), (2, 1), 1),
    "dilated": ("dense", 16, 16, (6, 7), (3, 3), (2, 3), (1, 0), (0, 2), (3, 2), (0, 0), 1),
    "1xN": ("dense", 16, 16, (1, 40), (1, 4), (1, 2), (0, 1), (0, 1), (1, 1), (0, 0), 1),
    "all_cropped": ("dense", 3, 5, (2, 2), (4, 4), (2, 2), (2, 2), (2, 2), (1, 1), (0, 0), 1),
    "groups": ("dense", 64, 96, (5, 8), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (0, 0), 2),
    "bilinear": ("depthwise", 21, 21, (5, 17), (4, 4), (2, 2), (1, 1), (1, 1), (1, 1), (0, 0), 21),
    "bilinear_x8": ("depthwise", 5, 5, (3, 6), (16, 16), (8, 8), (4, 4), (4, 4), (1, 1), (0, 0), 5),
    "odd_groups": ("generic", 12, 20, (5, 4), (3, 2), (2, 2), (1, 0), (0, 0), (1, 2), (1, 0), 4),
    "negative_pads": (
        "generic",
        9,
        6,
        (3, 4),
        (2, 3),
        (2, 1),
        (-1, -2),
        (-1, 0),
        (1, 1),
        (0, 0),
        1,
    ),
}


def case_of(name, target, num_workers=1):
    _, c, k, extent, kernel, strides, begin, end, dilations, extra, groups = CASES[name]
    params = DeconvolutionParams(strides, begin, end, dilations, extra, groups)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, c, *extent)).astype(np.float32)
    w = rng.standard_normal((c, k // groups, *kernel)).astype(np.float32)
    expected = DEFINITION.reference(params, [x, w])[0]
    # Error of a sum of n products in any order: n * eps/2 * sum |x||w|.
    terms = c // groups * kernel[0] * kernel[1]
    magnitude = DEFINITION.reference(params, [np.abs(x), np.abs(w)])[0]
    problem = Problem(
        "deconvolution",
        params,
        (
            dense_layout(TensorType(x.shape), target.blocked_format),
            dense_layout(TensorType(w.shape)),
        ),
        (False, True),
        (dense_layout(TensorType(expected.shape), target.blocked_format),),
        num_workers=num_workers,
    )
    return problem, [x, w], expected, (terms + 2) * EPS / 2 * magnitude


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_matches_the_reference(name, target):
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    problem, inputs, expected, limit = case_of(name, target, num_workers=2)
    tactics = FAMILY.tactics(problem, target)
    if target is AVX512:
        assert {tactic.values["mode"] for tactic in tactics} == {CASES[name][0]}
    for tactic in tactics:
        got = run(FAMILY, problem, tactic, target, inputs)
        assert got.shape == expected.shape
        assert (np.abs(got - expected) <= limit + 1e-30).all(), tactic.text


@pytest.mark.parametrize("name", ["3x3s2", "bilinear", "odd_groups"])
def test_bias_residual_views_and_activation(name):
    """A bias input, a residual and a ReLU; input and output are views of larger tensors."""
    target = AVX512
    problem, inputs, expected, limit = case_of(name, target)

    def view(layout):
        n, c, h, w = layout.strides
        wider = (n + 3 * c, c, h, w)
        return Layout(layout.format, layout.shape, DataType.FLOAT32, wider)

    rng = np.random.default_rng(5)
    bias = rng.standard_normal(expected.shape[1]).astype(np.float32)
    residual = rng.standard_normal(expected.shape).astype(np.float32)
    x, w = problem.inputs
    fused = Problem(
        "deconvolution",
        problem.params,
        (view(x), w, dense_layout(TensorType(bias.shape)), problem.outputs[0]),
        (False, True, True, False),
        (view(problem.outputs[0]),),
        Epilogue(relu(Binary("add", Input(0), Input(1))), 1),
    )
    expected = np.maximum(expected + bias[:, None, None] + residual, 0)
    limit = limit + 4 * EPS * (np.abs(bias[:, None, None]) + np.abs(residual)) + EPS * expected
    tactic = FAMILY.tactics(fused, target)[0]
    got = run(FAMILY, fused, tactic, target, [*inputs, bias, residual])
    assert (np.abs(got - expected) <= limit).all()


def test_refuses_what_it_cannot_do():
    problem, *_ = case_of("2x2s2", AVX512)
    assert not FAMILY.applies(problem, AVX2)
    linear = dense_layout(problem.inputs[0].type)
    assert not FAMILY.applies(
        Problem("deconvolution", problem.params, (linear, problem.inputs[1]), (False, True),
                problem.outputs),
        AVX512,
    )  # fmt: skip
    assert not FAMILY.applies(
        Problem("deconvolution", problem.params, problem.inputs, (False, False), problem.outputs),
        AVX512,
    )


def test_compiles_for_neon():
    for name in ("3x3s2", "bilinear", "odd_groups"):
        problem, *_ = case_of(name, NEON)
        for tactic in FAMILY.tactics(problem, NEON):
            compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)
