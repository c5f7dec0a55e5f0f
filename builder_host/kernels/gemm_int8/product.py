"""Matrix products seen as convolutions, so that one kernel template serves both.

A row-major left side is an image of one row whose pixels are its rows; a blocked input of a fully
connected layer is convolved with a kernel as large as the image.
"""

from __future__ import annotations

import math
from typing import Any

from builder_host.kernels.conv_direct.geometry import Convolution, Strides
from builder_host.kernels.conv_int8.problem import sums_fit, types_apply
from builder_host.kernels.family import Array, Problem
from builder_host.kernels.store_epilogue import operand_kind
from builder_host.layouts import Layout, dense_layout
from builder_host.targets.target import CpuTarget
from planformat.datatypes import TensorFormat

KINDS = ("fully_connected", "matrix_multiply")


def integer_product_of(problem: Problem, target: Any) -> Convolution | None:
    """An 8-bit product as a convolution, or None when the kernels cannot compute it.

    Needs an 8-bit left side, INT8 weights, sums that fit int32, and what `product_of` needs.
    """
    if problem.kind not in KINDS or not types_apply(problem):
        return None
    conv = product_of(problem, target, 4)
    terms = conv.channels * conv.num_taps if conv is not None else 0
    return conv if sums_fit(problem.inputs[0].dtype, terms) else None


def product_of(problem: Problem, target: Any, step: int) -> Convolution | None:
    """The problem as a convolution, element types aside; None when the kernel cannot compute it.

    Needs a constant right side (one matrix) and no bias, a row-major result, and a depth that is a
    multiple of `step` where the left side is row-major.
    """
    if problem.kind not in KINDS or not isinstance(target, CpuTarget):
        return None
    if problem.num_own_inputs != 2 or not problem.is_constant[1] or problem.is_constant[0]:
        return None
    if 0 in problem.inputs[0].shape or 0 in problem.outputs[0].shape:
        return None
    y, x = problem.outputs[0], problem.inputs[0]
    rows = _rows_of(y)
    if rows is None or (y.strides[-1] != 1 and y.shape[-1] != 1):
        return None
    operands = _operand_strides(problem, target.vector_elems)
    if operands is None:
        return None
    if problem.kind == "matrix_multiply":
        return _matrix(problem, target, step, rows, operands)
    if x.format is target.blocked_format:
        return _image(x, y, target, operands)
    return _flat(x, y, target, step, rows, operands)


def weights_of(problem: Problem, conv: Convolution, values: Array) -> Array:
    """The right side as convolution weights [K, C, KH, KW]."""
    if problem.kind == "matrix_multiply" and not problem.params.transpose_b:
        values = values.reshape(values.shape[-2:]).T
    return values.reshape(conv.filters, conv.channels, conv.kernel_h, conv.kernel_w)


def _rows_of(layout: Layout) -> tuple[int, int] | None:
    """Number of rows of a row-major tensor and the stride between them; None when that varies."""
    if layout.format is not TensorFormat.LINEAR or len(layout.shape) < 2:
        return None
    step = layout.strides[-2]
    expected = step
    for extent, stride in zip(layout.shape[-2::-1], layout.strides[-2::-1], strict=True):
        if extent != 1 and stride != expected:
            return None
        expected *= extent
    return math.prod(layout.shape[:-1]), step


def _matrix(
    problem: Problem,
    target: CpuTarget,
    step: int,
    rows: tuple[int, int],
    operands: tuple[Strides, ...],
) -> Convolution | None:
    a, b = problem.inputs[:2]
    left = _rows_of(a)
    if problem.params.transpose_a or math.prod(b.shape[:-2]) != 1 or left is None:
        return None
    if a.strides[-1] != 1 or a.shape[-1] % step or left[0] != rows[0]:
        return None
    return _convolution(target, rows, a.shape[-1], problem.outputs[0].shape[-1], left[1], operands)


def _flat(
    x: Layout,
    y: Layout,
    target: CpuTarget,
    step: int,
    rows: tuple[int, int],
    operands: tuple[Strides, ...],
) -> Convolution | None:
    depth = math.prod(x.shape[1:])
    dense = dense_layout(x.type).strides
    if x.format is not TensorFormat.LINEAR or depth % step or x.strides[1:] != dense[1:]:
        return None
    return _convolution(target, rows, depth, y.shape[1], x.strides[0], operands)


def _convolution(
    target: CpuTarget,
    rows: tuple[int, int],
    depth: int,
    columns: int,
    row_step: int,
    operands: tuple[Strides, ...],
) -> Convolution:
    lanes = target.vector_elems
    return Convolution(
        lanes=lanes,
        batch=1,
        channels=depth,
        filters=columns,
        groups=1,
        in_h=1,
        in_w=rows[0],
        out_h=1,
        out_w=rows[0],
        kernel_h=1,
        kernel_w=1,
        stride_h=1,
        stride_w=1,
        pad_top=0,
        pad_left=0,
        dilation_h=1,
        dilation_w=1,
        has_bias=False,
        x_is_blocked=True,
        x_strides=(0, lanes, 0, row_step),
        y_strides=(0, lanes, 0, rows[1]),
        operand_strides=operands,
    )


def _image(
    x: Layout, y: Layout, target: CpuTarget, operands: tuple[Strides, ...]
) -> Convolution | None:
    batch, channels, height, width = x.shape
    n, c, h, w = x.strides
    return Convolution(
        lanes=target.vector_elems,
        batch=batch,
        channels=channels,
        filters=y.shape[1],
        groups=1,
        in_h=height,
        in_w=width,
        out_h=1,
        out_w=1,
        kernel_h=height,
        kernel_w=width,
        stride_h=1,
        stride_w=1,
        pad_top=0,
        pad_left=0,
        dilation_h=1,
        dilation_w=1,
        has_bias=False,
        x_is_blocked=True,
        x_strides=(n, c, h, w),
        y_strides=(y.strides[0], target.vector_elems, 0, 0),
        # rows of the result are images here
        operand_strides=tuple((row, block, 0, 0) for _, block, _, row in operands),
    )


def _operand_strides(problem: Problem, lanes: int) -> tuple[Strides, ...] | None:
    """Strides of the epilogue's operands over (image, column block, h, row), or None."""
    y = problem.outputs[0]
    found: list[Strides] = []
    for layout, constant in zip(problem.inputs[2:], problem.is_constant[2:], strict=True):
        if constant:
            if operand_kind(layout, True, y, len(y.shape) - 1) != "channel":
                return None
            found.append((0, lanes, 0, 0))
            continue
        rows = _rows_of(layout)
        whole = y.shape[-1] % lanes == 0 and layout.strides[-1] == 1
        if layout.shape != y.shape or rows is None or not whole:
            return None
        found.append((0, lanes, 0, rows[1]))
    return tuple(found)
