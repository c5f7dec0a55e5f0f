"""LRN kernels against the float64 reference of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, run, runs_here

from builder_host.expressions import Input, relu
from builder_host.kernels.family import Problem
from builder_host.kernels.lrn.family import FAMILY
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.lrn import DEFINITION, LrnParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]
CAFFE = LrnParams(5, 1e-4, 0.75, 1.0)


def check(problem, target, values):
    """Relative error: `size` roundings of t to the power beta, 4 of roots and division.

    The power function is at most 2 ulp off; all terms of t have one sign.
    """
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    params = problem.params
    expected = DEFINITION.reference(params, [values])[0]
    if problem.epilogue:
        expected = np.maximum(expected, 0)
    relative = EPS * ((params.size + 3) / 2 * params.beta + 4)
    for tactic in FAMILY.tactics(problem, target):
        got = run(FAMILY, problem, tactic, target, [values])
        assert (np.abs(got - expected) <= relative * np.abs(expected)).all(), tactic.text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "linear"])
@pytest.mark.parametrize(
    ("shape", "params"),
    [
        ((1, 64, 9, 13), CAFFE),
        ((2, 21, 5, 6), LrnParams(3, 0.5, 0.75, 2.0)),
        ((1, 16, 3, 17), LrnParams(4, 2.0, 0.5, 1.0)),
        ((1, 5, 4, 4), LrnParams(9, 1.0, 1.0, 1.0)),
        ((1, 40, 2, 3), LrnParams(5, 0.3, 0.6, 1.5)),
        ((1, 70, 2, 3), LrnParams(37, 0.3, 0.75, 1.5)),
        ((1, 33, 1, 1), LrnParams(1, 0.1, 0.75, 1.0)),
    ],
    ids=str,
)
def test_matches_the_reference(shape, params, blocked, target):
    values = (3 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    fmt = target.blocked_format if blocked else dense_layout(TensorType(shape)).format
    layout = dense_layout(TensorType(shape), fmt)
    problem = Problem("lrn", params, (layout,), (False,), (layout,), num_workers=2)
    check(problem, target, values)


def test_other_ranks():
    for shape in ((3, 20), (2, 20, 7), (1, 6, 2, 3, 4)):
        values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        layout = dense_layout(TensorType(shape))
        check(Problem("lrn", CAFFE, (layout,), (False,), (layout,)), AVX512, values)


def test_views_and_epilogue():
    shape = (2, 32, 4, 9)
    plane = 4 * 9 * 16
    view = Layout(AVX512.blocked_format, shape, DataType.FLOAT32, (5 * plane, plane, 9 * 16, 16))
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    problem = Problem("lrn", CAFFE, (view,), (False,), (view,), Epilogue(relu(Input(0))))
    check(problem, AVX512, values)


def test_large_activations_do_not_overflow_early():
    """t^0.75 is finite wherever t is: no intermediate is larger than t itself."""
    values = np.full((1, 16, 1, 1), 1e18, np.float32)
    layout = dense_layout(TensorType(values.shape), AVX512.blocked_format)
    params = LrnParams(5, 1.0, 0.75, 1.0)
    check(Problem("lrn", params, (layout,), (False,), (layout,)), AVX512, values)


def test_refuses_regions_within_channels():
    layout = dense_layout(TensorType((1, 16, 5, 5)), AVX512.blocked_format)
    params = LrnParams(3, 1.0, 0.75, 1.0, "within")
    assert not FAMILY.applies(Problem("lrn", params, (layout,), (False,), (layout,)), AVX512)


def test_compiles_for_neon():
    for fmt in (NEON.blocked_format, dense_layout(TensorType((1, 1))).format):
        for beta in (0.75, 0.6):
            layout = dense_layout(TensorType((1, 21, 5, 5)), fmt)
            params = LrnParams(5, 1e-4, beta, 1.0)
            problem = Problem("lrn", params, (layout,), (False,), (layout,))
            for tactic in FAMILY.tactics(problem, NEON):
                compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)
