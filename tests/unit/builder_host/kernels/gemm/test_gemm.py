"""Fully connected layers and matrix products against the layers' float64 references."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, run, runs_here

from builder_host.expressions import Binary, Input, relu
from builder_host.kernels.family import Problem
from builder_host.kernels.gemm.family import FAMILY
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers import definition
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]


def needs(target) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(problem, target, inputs, expected, magnitude, tactics=slice(None)):
    """Every tactic agrees within one rounding per term of the sum of magnitudes."""
    found = FAMILY.tactics(problem, target)
    assert 1 <= len(found) <= 12
    for tactic in found[tactics]:
        got = run(FAMILY, problem, tactic, target, inputs)
        assert got.shape == expected.shape
        assert (np.abs(got - expected) <= magnitude).all(), tactic.text


def bound(a, b, depth):
    """Error bound of a float32 dot product in any order: depth * eps/2 * sum |a||b|."""
    return (depth + 4) * EPS / 2 * (np.abs(a) @ np.abs(b)) + 1e-30


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("batch", "shape", "columns"),
    [
        (1, (64,), 10),
        (1, (1025,), 1000),
        (1, (33, 3, 3), 65),
        (2, (77,), 48),
        (7, (130,), 17),
        (16, (96, 2), 100),
        (37, (50,), 33),
        (300, (2100,), 40),
    ],
)
def test_fully_connected_linear(batch, shape, columns, target):
    needs(target)
    x, w = random((batch, *shape)), random((columns, int(np.prod(shape))), 1)
    problem = Problem(
        "fully_connected",
        FullyConnectedParams(),
        (dense_layout(TensorType(x.shape)), dense_layout(TensorType(w.shape))),
        (False, True),
        (dense_layout(TensorType((batch, columns))),),
    )
    expected = definition("fully_connected").reference(problem.params, [x, w])[0]
    limit = bound(x.reshape(batch, -1), w.T, w.shape[1])
    check(problem, target, [x, w], expected, limit)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("is_constant", [True, False], ids=["packed", "dynamic"])
@pytest.mark.parametrize(
    "shape",
    [(1, 64, 1, 1), (2, 37, 1, 1), (1, 32, 3, 5), (3, 20, 4, 3), (1, 5, 6, 6)],
    ids=str,
)
def test_fully_connected_blocked(shape, is_constant, target):
    needs(target)
    x, w = random(shape), random((70, int(np.prod(shape[1:]))), 1)
    problem = Problem(
        "fully_connected",
        FullyConnectedParams(),
        (
            dense_layout(TensorType(shape), target.blocked_format),
            dense_layout(TensorType(w.shape)),
        ),
        (False, is_constant),
        (dense_layout(TensorType((shape[0], 70))),),
    )
    if not is_constant and shape[2:] != (1, 1):
        assert not FAMILY.applies(problem, target)
        return
    expected = definition("fully_connected").reference(problem.params, [x, w])[0]
    limit = bound(x.reshape(shape[0], -1), w.T, w.shape[1])
    check(problem, target, [x, w], expected, limit, slice(0, 2))


def test_fully_connected_blocked_view_of_a_concatenation():
    shape, target = (2, 32, 3, 3), AVX512
    view = Layout(target.blocked_format, shape, DataType.FLOAT32, (9 * 80, 9 * 16, 3 * 16, 16))
    x, w = random(shape), random((20, 288), 1)
    problem = Problem(
        "fully_connected",
        FullyConnectedParams(),
        (view, dense_layout(TensorType(w.shape))),
        (False, True),
        (Layout(TensorFormat.LINEAR, (2, 20), DataType.FLOAT32, (50, 1)),),
    )
    expected = definition("fully_connected").reference(problem.params, [x, w])[0]
    limit = bound(x.reshape(2, -1), w.T, 288)
    check(problem, target, [x, w], expected, limit)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("batch", [1, 3])
def test_bias_residual_and_activation(batch, target):
    """A bias input, a per-column constant, a residual and a ReLU at store time."""
    needs(target)
    x, w, b = random((batch, 40)), random((35, 40), 1), random((35,), 2)
    shift, residual = random((1, 35), 3), random((batch, 35), 4)
    expr = relu(Binary("add", Binary("add", Input(0), Input(1)), Input(2)))
    y = dense_layout(TensorType((batch, 35)))
    problem = Problem(
        "fully_connected",
        FullyConnectedParams(),
        tuple(dense_layout(TensorType(v.shape)) for v in (x, w, b, shift, residual)),
        (False, True, True, True, False),
        (y,),
        Epilogue(expr, 2),
    )
    product = definition("fully_connected").reference(problem.params, [x, w, b])[0]
    expected = np.maximum(product + shift + residual, 0)
    limit = bound(x, w.T, 40) + 8 * EPS * (np.abs(shift) + np.abs(residual) + np.abs(b))
    check(problem, target, [x, w, b, shift, residual], expected, limit)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("is_constant", [True, False], ids=["packed", "dynamic"])
@pytest.mark.parametrize("transposes", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("batch_a", "batch_b", "m", "k", "n"),
    [
        ((), (), 33, 29, 50),
        ((2, 3), (), 5, 64, 16),
        ((2, 1), (3,), 7, 40, 33),
        ((4,), (4,), 1, 65, 19),
        ((), (2,), 20, 300, 70),
    ],
)
def test_matrix_multiply(batch_a, batch_b, m, k, n, transposes, is_constant, target):
    needs(target)
    if target is AVX2 and transposes not in ((False, False), (True, True)):
        pytest.skip("the two other transposes hold the same code paths")
    params = MatrixMultiplyParams(*transposes)
    a, b = random((*batch_a, m, k)), random((*batch_b, k, n), 1)
    magnitude = bound(a, b, k)
    a = np.ascontiguousarray(a.swapaxes(-1, -2)) if transposes[0] else a
    b = np.ascontiguousarray(b.swapaxes(-1, -2)) if transposes[1] else b
    expected = definition("matrix_multiply").reference(params, [a, b])[0]
    problem = Problem(
        "matrix_multiply",
        params,
        (dense_layout(TensorType(a.shape)), dense_layout(TensorType(b.shape))),
        (False, is_constant),
        (dense_layout(TensorType(expected.shape)),),
    )
    check(problem, target, [a, b], expected, magnitude, slice(0, 1))


def test_every_tile_of_a_product_in_depth_blocks():
    """All tactics, depth over several blocks, with residual, on a batched product."""
    a, b, residual = random((2, 61, 3000)), random((2, 3000, 150), 1), random((2, 61, 150), 2)
    y = dense_layout(TensorType((2, 61, 150)))
    expected = np.matmul(a.astype(np.float64), b) + residual
    for is_constant in (True, False):
        problem = Problem(
            "matrix_multiply",
            MatrixMultiplyParams(),
            (dense_layout(TensorType(a.shape)), dense_layout(TensorType(b.shape)), y),
            (False, is_constant, False),
            (y,),
            Epilogue(Binary("add", Input(0), Input(1)), 1),
            num_workers=2,
        )
        magnitude = bound(a, b, 3000) + EPS * np.abs(residual)
        check(problem, AVX512, [a, b, residual], expected, magnitude)


def test_refuses_what_it_cannot_do():
    x, w = dense_layout(TensorType((1, 20))), dense_layout(TensorType((5, 20)))
    y = dense_layout(TensorType((1, 5)))
    good = Problem("fully_connected", FullyConnectedParams(), (x, w), (False, True), (y,))
    assert FAMILY.applies(good, AVX512)
    half = dense_layout(TensorType((1, 20), DataType.FLOAT16))
    assert not FAMILY.applies(
        Problem("fully_connected", FullyConnectedParams(), (half, w), (False, True), (y,)), AVX512
    )
    per_row = dense_layout(TensorType((1, 1)))
    assert not FAMILY.applies(
        Problem(
            "fully_connected",
            FullyConnectedParams(),
            (x, w, per_row),
            (False, True, False),
            (y,),
            Epilogue(Binary("mul", Input(0), Input(1)), 1),
        ),
        AVX512,
    )


def test_compiles_for_neon():
    for m in (1, 3, 50):
        for transpose in (False, True):
            params = MatrixMultiplyParams(transpose_b=transpose)
            b = (70, 40) if transpose else (40, 70)
            for is_constant in (True, False):
                problem = Problem(
                    "matrix_multiply",
                    params,
                    (dense_layout(TensorType((m, 40))), dense_layout(TensorType(b))),
                    (False, is_constant),
                    (dense_layout(TensorType((m, 70))),),
                )
                for tactic in FAMILY.tactics(problem, NEON)[:2]:
                    compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)
