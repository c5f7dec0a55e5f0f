"""A convolution problem with the maximum of 2x2 windows behind it, and its float64 reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from builder_host.expressions import evaluate
from builder_host.kernels.family import Problem
from builder_host.layouts import dense_layout
from builder_host.network.layers import convolution
from builder_host.network.layers.pooled_convolution import PooledConvolutionParams
from builder_host.network.layers.pooling import PoolingParams

Array = np.ndarray[Any, Any]


def quartering(rows: int, columns: int) -> PoolingParams:
    """The maximum of 2x2 windows side by side, as many as fit."""
    extents = (rows // 2, columns // 2)
    return PoolingParams("max", (2, 2), (2, 2), (0, 0), (0, 0), extents, (1, 1), False)


def pooled(problem: Problem) -> Problem:
    """The fused problem of a convolution whose epilogue has constants per channel only.

    Where the convolution's output is a strided view, so is the fused one's.
    """
    y = problem.outputs[0]
    n, c, h, w = y.shape
    pooling = quartering(h, w)
    shape = replace(y.type, shape=(n, c, *pooling.output_spatial))
    layout = dense_layout(shape, y.format)
    if not y.is_dense:
        layout = replace(layout, strides=y.strides)
    params = PooledConvolutionParams(problem.params, pooling)
    return replace(problem, kind="pooled_convolution", params=params, outputs=(layout,))


def reference(problem: Problem, inputs: list[Array]) -> Array:
    """Float64 result: convolution, epilogue, then the maximum."""
    own, params = problem.num_own_inputs, problem.params
    exact = [a.astype(np.float64) for a in inputs]
    raw = convolution.DEFINITION.reference(params.convolution, exact[:own])[0]
    if problem.epilogue is not None:
        raw = np.asarray(evaluate(problem.epilogue.expr, [np.asarray(raw), *exact[own:]]))
    return largest_of_windows(np.asarray(raw), params.pooling.output_spatial)


def largest_of_windows(values: Array, extents: tuple[int, ...]) -> Array:
    """Maximum of 2x2 windows of `[N,C,H,W]`; rows and columns outside windows are left out."""
    rows, columns = (2 * extent for extent in extents)
    cut = values[:, :, :rows, :columns]
    return np.asarray(cut.reshape(*cut.shape[:2], rows // 2, 2, columns // 2, 2).max(axis=(3, 5)))
