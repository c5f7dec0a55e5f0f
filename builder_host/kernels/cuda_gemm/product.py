"""Fully connected layers and products with a constant matrix as rows times columns."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from builder_host.kernels.cuda_conv_simt.geometry import integer_types_apply
from builder_host.kernels.family import Array, Problem
from builder_host.kernels.store_epilogue import with_bias_as_operand
from builder_host.layouts import Layout, dense_layout
from planformat.datatypes import DataType, TensorFormat

CUDA_TYPES = {DataType.FLOAT16: "half", DataType.FLOAT32: "float"}


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of the epilogue.

    Attributes:
        name: of the kernel's parameter.
        dtype: as stored; channel vectors are FLOAT32.
        is_channel: a constant vector over the columns; else it has the output's shape.
        row_stride: elements from row to row of a full operand.
    """

    name: str
    dtype: DataType
    is_channel: bool
    row_stride: int = 0


@dataclass(frozen=True, slots=True)
class Product:
    """y[row][column] = sum over depth of x[row][depth] * w[column][depth].

    Attributes:
        problem: with the bias as first operand of the epilogue.
        rows, columns, depth: extents; x_stride, y_stride: elements from row to row.
        operands: inputs of the epilogue in order.
    """

    problem: Problem
    rows: int
    columns: int
    depth: int
    x_stride: int
    y_stride: int
    operands: tuple[Operand, ...]

    @property
    def dtype(self) -> DataType:
        """Element type of x and of the packed weights."""
        return self.problem.inputs[0].dtype

    @property
    def padded_depth(self) -> int:
        """Depth in whole chunks of 16 bytes."""
        pack = 16 // self.dtype.size_bytes
        return -(-self.depth // pack) * pack


def product_of(problem: Problem, *, integers: bool = False) -> Product | None:
    """The problem as a product with constant weights, or None when it is none.

    Args:
        problem: any problem.
        integers: x has 8 bits and the weights are INT8, instead of fp16 or fp32.
    """
    if problem.kind not in ("fully_connected", "matrix_multiply") or len(problem.inputs) < 2:
        return None
    x, w, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    if integers:
        types_apply = integer_types_apply(problem)
    else:
        stored = (y, *problem.inputs)
        types_apply = w.dtype is x.dtype and all(t.dtype in CUDA_TYPES for t in stored)
    if not types_apply or not problem.is_constant[1] or problem.is_constant[0]:
        return None
    if 0 in x.shape or 0 in y.shape or y.format is not TensorFormat.LINEAR:
        return None
    canonical = with_bias_as_operand(problem, 2, len(y.shape) - 1)
    if problem.kind == "fully_connected":
        rows, depth, x_stride = x.shape[0], math.prod(x.shape[1:]), x.strides[0]
        if not _rows_are_dense(x):
            return None
    else:
        params = problem.params
        if params.transpose_a or x.format is not TensorFormat.LINEAR or not x.is_dense:
            return None
        if math.prod(w.shape[:-2]) != 1 or x.shape[:-1] != y.shape[:-1]:
            return None
        rows, depth = math.prod(x.shape[:-1]), x.shape[-1]
        x_stride = depth
    y_stride = _row_stride(y)
    operands = _operands(canonical, y)
    if y_stride is None or operands is None:
        return None
    return Product(canonical, rows, y.shape[-1], depth, x_stride, y_stride, operands)


def _rows_are_dense(x: Layout) -> bool:
    """Whether the elements of one row lie one after another."""
    if x.format.channel_block > 1:
        return False
    dense = dense_layout(x.type, x.format).strides[1:]
    pairs = zip(x.strides[1:], dense, x.shape[1:], strict=True)
    return all(have == want or extent == 1 for have, want, extent in pairs)


def _row_stride(layout: Layout) -> int | None:
    """Stride of the rows (all dimensions but the last joined), None when there is no such."""
    if layout.strides[-1] != 1 and layout.shape[-1] != 1:
        return None
    outer = [(e, s) for e, s in zip(layout.shape[:-1], layout.strides[:-1], strict=True) if e > 1]
    for (_, stride), (extent, inner) in itertools.pairwise(outer):
        if stride != extent * inner:
            return None
    return outer[-1][1] if outer else layout.shape[-1]


def _operands(problem: Problem, y: Layout) -> tuple[Operand, ...] | None:
    own = problem.num_own_inputs
    found = []
    for number in range(own, len(problem.inputs)):
        layout, name = problem.inputs[number], f"p{number - own + 1}"
        if problem.is_constant[number]:
            shape = (1,) * (len(y.shape) - len(layout.shape)) + layout.shape
            is_vector = all(e == 1 for e in shape[:-1]) and shape[-1] in (1, y.shape[-1])
            if not is_vector or len(shape) != len(y.shape):
                return None
            found.append(Operand(name, DataType.FLOAT32, True))
            continue
        stride = _row_stride(layout)
        if layout.shape != y.shape or layout.format is not y.format or stride is None:
            return None
        found.append(Operand(name, layout.dtype, False, stride))
    return tuple(found)


def packed_weights(product: Product, weights: Array, columns: int) -> Array:
    """Weights as [columns][padded depth], zeros behind, in the order of x's memory.

    Args:
        product: whose layouts count.
        weights: [K, V] of a fully connected layer, or the right side of a matrix product.
        columns: rows of the result, at least the product's columns.
    """
    problem = product.problem
    values = weights
    if problem.kind == "fully_connected":
        x = problem.inputs[0]
        if x.format is TensorFormat.NHWC:
            shaped = values.reshape(len(values), *x.shape[1:])
            values = shaped.transpose(0, 2, 3, 1).reshape(len(values), -1)
    else:
        values = values.reshape(values.shape[-2:])
        values = values if problem.params.transpose_b else values.T
    packed = np.zeros((columns, product.padded_depth), weights.dtype)
    packed[: product.columns, : product.depth] = values
    return packed


def fragments(weights: Array) -> Array:
    """Weights in the order in which the lanes of an mma read them.

    Args:
        weights: [columns][depth], columns a multiple of 16.

    Returns:
        [column tile][block of 32 depths][mma][lane][8 elements], depth padded with zeros. Lane
        4 g + t has columns g and g + 8 at the depths 8 t + 4 mma .. + 3.
    """
    columns, depth = weights.shape
    blocks = -(-depth // 32)
    padded = np.zeros((columns, blocks * 32), weights.dtype)
    padded[:, :depth] = weights
    # column = tile, upper half, g; depth = block, t, mma, pair, element
    split = padded.reshape(columns // 16, 2, 8, blocks, 4, 2, 2, 2)
    return np.ascontiguousarray(split.transpose(0, 3, 5, 2, 4, 6, 1, 7))


def packed_operands(
    product: Product, constants: list[Array | None], columns: int
) -> list[Array | None]:
    """Float vectors of `columns` elements for the constant operands, None for the others."""
    packed: list[Array | None] = []
    for operand, values in zip(product.operands, constants, strict=True):
        if not operand.is_channel or values is None:
            packed.append(None)
            continue
        vector = np.zeros(columns, np.float32)
        vector[: product.columns] = np.broadcast_to(values.reshape(-1), (product.columns,))
        packed.append(vector)
    return packed
