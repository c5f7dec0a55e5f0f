"""gemm_bf16: against float64 products of the same rounded values."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from support.integer_kernels import BF16, F32, TARGETS, needs, run_tactic

from builder_host.kernels.family import Problem
from builder_host.kernels.gemm_bf16.family import FAMILY
from builder_host.layouts import dense_layout
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

TARGET = TARGETS["avx512-vnni"]


def fully_connected(
    x_shape: tuple[int, ...], columns: int, y: DataType, *, blocked: bool, bias: bool
) -> Problem:
    """A fully connected layer."""
    x = dense_layout(TensorType(x_shape, BF16))
    if blocked:
        x = dense_layout(x.type, TARGET.blocked_format)
    depth = int(np.prod(x_shape[1:]))
    inputs = [x, dense_layout(TensorType((columns, depth), BF16))]
    if bias:
        inputs.append(dense_layout(TensorType((columns,), BF16)))
    output = dense_layout(TensorType((x_shape[0], columns), y))
    constant = (False,) + (True,) * (len(inputs) - 1)
    return Problem("fully_connected", FullyConnectedParams(), tuple(inputs), constant, (output,))


def check(problem: Problem) -> None:
    """All tactics within float32 accumulation, and half a step of a bfloat16 result."""
    needs("avx512-vnni")
    rng = np.random.default_rng(0)
    inputs = [
        rng.standard_normal(layout.shape).astype(ml_dtypes.bfloat16) for layout in problem.inputs
    ]
    x, b = (a.astype(np.float64) for a in inputs[:2])
    wanted = x @ b if problem.kind == "matrix_multiply" else x.reshape(len(x), -1) @ b.T
    terms = b.shape[0] if problem.kind == "matrix_multiply" else b.shape[1]
    if len(inputs) > 2:
        wanted = wanted + inputs[2].astype(np.float64)
    limit = 4 * 2.0**-23 * terms**0.5 * np.abs(wanted).max()
    if problem.outputs[0].dtype is BF16:
        limit = limit + 2.0**-8 * np.abs(wanted) * 1.01
    for tactic in FAMILY.tactics(problem, TARGET)[::2]:
        got = run_tactic(FAMILY, problem, tactic, TARGET, inputs).astype(np.float64)
        assert (np.abs(got - wanted) <= limit).all(), f"{np.abs(got - wanted).max():.3g}"


@pytest.mark.parametrize(
    ("x_shape", "columns", "y", "blocked", "bias"),
    [
        ((1, 512), 1000, BF16, False, True),
        ((5, 16, 3, 4), 40, F32, False, False),
        ((2, 35, 3, 4), 50, BF16, True, True),
        ((37, 130), 64, F32, False, True),
    ],
)
def test_fully_connected(
    x_shape: tuple[int, ...], columns: int, y: DataType, blocked: bool, bias: bool
) -> None:
    check(fully_connected(x_shape, columns, y, blocked=blocked, bias=bias))


def test_a_product_with_a_constant_matrix() -> None:
    layouts = tuple(
        dense_layout(TensorType(shape, BF16)) for shape in ((2, 3, 9, 66), (66, 33), (2, 3, 9, 33))
    )
    params = MatrixMultiplyParams()
    check(Problem("matrix_multiply", params, layouts[:2], (False, True), layouts[2:]))


def test_does_not_apply_to_odd_depths_or_run_time_matrices() -> None:
    odd = fully_connected((4, 31), 16, BF16, blocked=False, bias=False)
    assert not FAMILY.applies(odd, TARGET)
    even = fully_connected((4, 32), 16, BF16, blocked=False, bias=False)
    assert FAMILY.applies(even, TARGET)
    assert not FAMILY.applies(even, TARGETS["avx2"])
    run_time = Problem(even.kind, even.params, even.inputs, (False, False), even.outputs)
    assert not FAMILY.applies(run_time, TARGET)
