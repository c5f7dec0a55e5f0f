"""Softmax kernels against the float64 reference of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, run, runs_here

from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.softmax.family import FAMILY
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.softmax import DEFINITION, SoftmaxParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]


def linear_problem(shape, axis, log, **more):
    layout = dense_layout(TensorType(shape))
    return Problem("softmax", SoftmaxParams(axis, log), (layout,), (False,), (layout,), **more)


def check(problem, target, values):
    """Relative error: 1 ulp of exp, its argument's rounding, the sum, one product.

    The argument x - max is rounded once, which exp turns into |x - max| * eps/2; the sum adds at
    most extent/16 + 8 roundings. Log-softmax has the same as an absolute error.
    """
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    axis, log = problem.params.axis, problem.params.log
    expected = DEFINITION.reference(problem.params, [values])[0]
    spread = values.max(axis=axis, keepdims=True) - values.astype(np.float64)
    relative = EPS * (4 + spread + (values.shape[axis] / 16 + 8) / 2)
    limit = relative + EPS * np.abs(expected) if log else relative * expected + 1e-44
    (tactic,) = FAMILY.tactics(problem, target)
    got = run(FAMILY, problem, tactic, target, [values])
    assert (np.abs(got - expected) <= limit).all()
    return tactic.values["form"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log"])
@pytest.mark.parametrize(
    ("shape", "axis", "form"),
    [
        ((1, 1000), 1, "rows"),
        ((3, 37, 21), 2, "rows"),
        ((7, 1), 1, "rows"),
        ((5, 64), 1, "rows"),
        ((2, 1000, 1, 1), 1, "rows"),
        ((2, 21, 9, 11), 1, "columns"),
        ((2, 3, 5, 7), 2, "columns"),
        ((40, 3), 0, "columns"),
        ((1, 4, 130), 1, "columns"),
    ],
    ids=str,
)
def test_linear(shape, axis, form, log, target):
    values = (4 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    assert check(linear_problem(shape, axis, log, num_workers=2), target, values) == form


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log"])
@pytest.mark.parametrize("shape", [(2, 1000, 1, 1), (1, 21, 6, 5), (2, 8, 3, 3), (1, 96, 1, 9)])
def test_blocked_channels(shape, log, target):
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    blocked = dense_layout(TensorType(shape), target.blocked_format)
    outputs = [blocked]
    if shape[2:] == (1, 1):
        outputs.append(dense_layout(TensorType(shape)))
    for output in outputs:
        problem = Problem("softmax", SoftmaxParams(1, log), (blocked,), (False,), (output,))
        check(problem, target, values)


def test_views_and_epilogue():
    shape = (3, 5, 40)
    x = Layout(TensorFormat.LINEAR, shape, DataType.FLOAT32, (700, 130, 1))
    y = Layout(TensorFormat.LINEAR, shape, DataType.FLOAT32, (300, 41, 1))
    doubled = Epilogue(Binary("mul", Input(0), Const(2.0)))
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    problem = Problem("softmax", SoftmaxParams(2), (x,), (False,), (y,), doubled)
    (tactic,) = FAMILY.tactics(problem, AVX512)
    got = run(FAMILY, problem, tactic, AVX512, [values])
    expected = 2 * DEFINITION.reference(problem.params, [values])[0]
    np.testing.assert_allclose(got, expected, rtol=30 * EPS)


def test_large_values_and_infinities():
    """No overflow; -inf gives exactly 0; +inf and NaN give NaN rows as in the reference."""
    values = np.zeros((5, 50), np.float32)
    values[0, 3], values[1] = 3e38, -3e38
    values[2, 7], values[3, 9], values[4, 49] = -np.inf, np.inf, np.nan
    problem = linear_problem((5, 50), 1, False)
    (tactic,) = FAMILY.tactics(problem, AVX512)
    got = run(FAMILY, problem, tactic, AVX512, [values])
    with np.errstate(invalid="ignore"):
        expected = DEFINITION.reference(problem.params, [values])[0]
    assert got[2, 7] == 0.0
    assert got[0, 3] == 1.0
    np.testing.assert_allclose(got[:3], expected[:3], rtol=30 * EPS)
    assert np.isnan(got[3, 9])
    assert np.isnan(got[4]).all()


def test_refuses_what_it_cannot_do():
    gaps = Layout(TensorFormat.LINEAR, (2, 3, 4, 5), DataType.FLOAT32, (600, 200, 8, 1))
    params = SoftmaxParams(1)
    assert not FAMILY.applies(Problem("softmax", params, (gaps,), (False,), (gaps,)), AVX512)
    blocked = dense_layout(TensorType((1, 16, 4, 4)), AVX512.blocked_format)
    rows = Problem("softmax", SoftmaxParams(2), (blocked,), (False,), (blocked,))
    assert not FAMILY.applies(rows, AVX512)


def test_compiles_for_neon():
    for shape, axis in (((3, 21), 1), ((2, 21, 9, 11), 1)):
        for log in (False, True):
            problem = linear_problem(shape, axis, log)
            (tactic,) = FAMILY.tactics(problem, NEON)
            compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)
