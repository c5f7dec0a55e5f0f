"""Products of 8-bit matrices: problems for every device kind, and their exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType
from support.integer_kernels import F32, I8, U8, scaled_epilogue

Array = np.ndarray[Any, Any]


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


def problem_of(case: Product, target: CpuTarget | CudaTarget) -> Problem:
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


def integer_product(case: Product, inputs: Sequence[Array]) -> Array:
    """Exact sums in int64, in the shape of the result."""
    x, b = inputs[0].astype(np.int64), inputs[1].astype(np.int64)
    if not case.b_shape:
        return x.reshape(len(x), -1) @ b.T
    sums = x @ (b.swapaxes(-1, -2) if case.transpose_b else b)
    return sums.reshape(*case.x_shape[:-1], case.columns)
