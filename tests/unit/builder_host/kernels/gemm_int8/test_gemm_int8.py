"""gemm_int8: bits equal to an int64 matrix product and a float32 epilogue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from support.integer_kernels import (
    F32,
    I8,
    TARGETS,
    U8,
    finished,
    needs,
    random_inputs,
    run_tactic,
    scaled_epilogue,
)

from builder_host.kernels.family import Problem
from builder_host.kernels.gemm_int8.family import FAMILY
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.tensor_type import TensorType
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType


@dataclass(frozen=True)
class Product:
    """A fully connected layer on `x_shape`, or a matrix product when `b_shape` is given."""

    x_shape: tuple[int, ...]
    columns: int
    b_shape: tuple[int, ...] = ()
    transpose_b: bool = False
    x: DataType = I8
    y: DataType = F32
    residual: DataType | None = None
    blocked: bool = False
    row_gap: int = 0
    workers: int = 1


CASES = [
    Product((1, 512), 100),
    Product((1, 260), 1000, x=U8, y=I8, workers=2),
    Product((5, 16, 3, 4), 40, y=U8),
    Product((2, 35, 3, 4), 50, blocked=True),
    Product((1, 64, 1, 1), 48, blocked=True, residual=I8, x=U8),
    Product((37, 128), 64, residual=I8, y=I8, row_gap=12),
    Product((2, 3, 9, 64), 33, (64, 33), x=U8, workers=3),
    Product((20, 36), 24, (1, 24, 36), transpose_b=True),
]


def problem_of(case: Product, target: CpuTarget) -> Problem:
    """The problem with scale and bias per column, requantised when y has 8 bits."""
    x = dense_layout(TensorType(case.x_shape, case.x))
    if case.blocked:
        x = dense_layout(x.type, target.blocked_format)
    if case.row_gap:
        x = replace(x, strides=(x.strides[0] + case.row_gap, *x.strides[1:]))
    rows = case.x_shape[:-1] if case.b_shape else case.x_shape[:1]
    y = dense_layout(TensorType((*rows, case.columns), case.y))
    if case.row_gap:
        y = replace(y, strides=(y.strides[0] + case.row_gap, 1))
    depth = int(np.prod(case.x_shape[1:]))
    weights = dense_layout(TensorType(case.b_shape or (case.columns, depth), I8))
    channel = dense_layout(TensorType((case.columns,)))
    inputs: list[Layout] = [x, weights, channel, channel]
    constant = [False, True, True, True]
    if case.residual is not None:
        inputs.append(dense_layout(TensorType(y.shape, case.residual)))
        constant.append(False)
    params: object = FullyConnectedParams()
    if case.b_shape:
        params = MatrixMultiplyParams(False, case.transpose_b)
    epilogue = scaled_epilogue(
        case.y, residual=case.residual is not None, relu=case.y is U8, factor=9.1
    )
    kind = "matrix_multiply" if case.b_shape else "fully_connected"
    return Problem(kind, params, tuple(inputs), tuple(constant), (y,), epilogue, case.workers)


@pytest.mark.parametrize(
    "name",
    [
        "avx512-vnni",
        "avx2",
        pytest.param("neon-dotprod", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.x_shape}-{c.columns}")
def test_tactics_give_the_exact_result(case: Product, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    problem = problem_of(case, target)
    inputs = random_inputs(problem)
    x, b = inputs[0].astype(np.int64), inputs[1].astype(np.int64)
    if not case.b_shape:
        sums = x.reshape(len(x), -1) @ b.T
    else:
        sums = x @ (b.swapaxes(-1, -2) if case.transpose_b else b)
    sums = sums.reshape(problem.outputs[0].shape)
    wanted = finished(problem, sums, inputs)
    assert len(np.unique(wanted)) > 20
    tactics = FAMILY.tactics(problem, target)
    for tactic in tactics[::2] if name == "avx512-vnni" else tactics[:1]:
        got = run_tactic(FAMILY, problem, tactic, target, inputs)
        assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ"


def test_does_not_apply_to_depths_off_four_or_residuals_with_partial_vectors() -> None:
    target = TARGETS["avx2"]
    assert not FAMILY.applies(problem_of(Product((4, 30), 16), target), target)
    assert FAMILY.applies(problem_of(Product((4, 32), 20), target), target)
    assert not FAMILY.applies(problem_of(Product((4, 32), 20, residual=I8), target), target)
    assert not FAMILY.applies(problem_of(Product((1, 4 * 40000), 8), target), target)
