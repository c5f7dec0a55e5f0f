"""A fully connected layer or a matrix product as one batched row-major product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder_host.kernels.family import Array, Problem
from builder_host.kernels.store_epilogue import operand_kind
from builder_host.layouts import Layout, dense_layout
from planformat.datatypes import DataType, TensorFormat

Batch = tuple[tuple[int, int], ...]  # extent and stride, outermost first


@dataclass(frozen=True, slots=True)
class Product:
    """C[batch][row][column] = sum over depth of A[batch][row][depth] * B[batch][depth][column].

    Attributes:
        rows, columns, depth: extents of one batch item; batch: number of items.
        a, b, c: strides in elements over (row, depth), (depth, column), (row, column).
        batch_a, batch_b, batch_c: extent and stride of each batch dimension.
        gather: whether rows of A are blocked with gaps and must be copied first.
    """

    rows: int
    columns: int
    depth: int
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int]
    batch_a: Batch = ()
    batch_b: Batch = ()
    batch_c: Batch = ()
    gather: bool = False

    @property
    def batch(self) -> int:
        """Number of batch items."""
        return math.prod(extent for extent, _ in self.batch_c)


def product_of(problem: Problem, block: int) -> Product | None:
    """The problem as a product, or None when its layouts do not allow that.

    Args:
        problem: kind fully_connected or matrix_multiply, bias folded into the epilogue.
        block: channel block of the target's blocked format.
    """
    if any(layout.dtype is not DataType.FLOAT32 for layout in (*problem.inputs, *problem.outputs)):
        return None
    y = problem.outputs[0]
    if y.format is not TensorFormat.LINEAR or 0 in y.shape or 0 in problem.inputs[0].shape:
        return None
    if y.strides[-1] != 1 and y.shape[-1] != 1:
        return None
    for layout, constant in zip(problem.inputs[2:], problem.is_constant[2:], strict=True):
        kind = operand_kind(layout, constant, y, len(y.shape) - 1)
        if kind is None or (kind == "full" and layout.strides[-1] != 1 and y.shape[-1] != 1):
            return None
    if problem.kind == "fully_connected":
        return _fully_connected(problem, block)
    return _matrix_multiply(problem)


def batch_offset(batch: Batch) -> str:
    """C expression of the element offset of item number `batch`."""
    terms, inner = [], 1
    for extent, stride in reversed(batch):
        if extent > 1 and stride:
            terms.append(f"batch / {inner} % {extent} * INT64_C({stride})")
        inner *= extent
    return " + ".join(terms) or "0"


def depth_order(problem: Problem) -> Array | None:
    """Order in which a blocked input's elements are read, as indices into the flattened input."""
    x = problem.inputs[0]
    block = x.format.channel_block
    if problem.kind != "fully_connected" or block == 1:
        return None
    index = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:])
    blocks = [index[c : c + block].transpose(1, 2, 0).ravel() for c in range(0, len(index), block)]
    return np.concatenate(blocks)


def _fully_connected(problem: Problem, block: int) -> Product | None:
    x, w, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    depth = math.prod(x.shape[1:])
    if w.format is not TensorFormat.LINEAR:
        return None
    gather = False
    if x.format is TensorFormat.LINEAR:
        dense = dense_layout(x.type).strides[1:]
        inner = zip(x.strides[1:], dense, x.shape[1:], strict=True)
        if any(have != want and extent > 1 for have, want, extent in inner):
            return None
    else:
        if x.format.channel_block != block:
            return None
        gather = not _is_one_run(x)
        one_pixel = math.prod(x.shape[2:]) == 1
        if not problem.is_constant[1] and (gather or not one_pixel):
            return None
    return Product(
        rows=x.shape[0],
        columns=w.shape[0],
        depth=depth,
        a=(x.strides[0], 1),
        b=(w.strides[1], w.strides[0]),
        c=(y.strides[0], 1),
        gather=gather,
    )


def _is_one_run(x: Layout) -> bool:
    """Whether the elements of one image lie one after another, padded lanes only at the end."""
    _, c, h, w = x.shape
    block = x.format.channel_block
    if h * w > 1 and c % block:
        return False
    dense = dense_layout(x.type, x.format).strides[1:]
    extents = (x.num_channel_blocks, h, w)
    inner = zip(x.strides[1:], dense, extents, strict=True)
    return all(have == want or extent == 1 for have, want, extent in inner)


def _matrix_multiply(problem: Problem) -> Product | None:
    a, b, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    if a.format is not TensorFormat.LINEAR or b.format is not TensorFormat.LINEAR:
        return None
    params = problem.params
    a_strides, b_strides = a.strides[-2:], b.strides[-2:]
    depth = a.shape[-2 if params.transpose_a else -1]
    if depth == 0:
        return None
    outer = y.shape[:-2]
    product = Product(
        rows=y.shape[-2],
        columns=y.shape[-1],
        depth=depth,
        a=(a_strides[1], a_strides[0]) if params.transpose_a else (a_strides[0], a_strides[1]),
        b=(b_strides[1], b_strides[0]) if params.transpose_b else (b_strides[0], b_strides[1]),
        c=(y.strides[-2], 1),
        batch_a=broadcast_batch(outer, a.shape[:-2], a.strides[:-2]),
        batch_b=broadcast_batch(outer, b.shape[:-2], b.strides[:-2]),
        batch_c=broadcast_batch(outer, outer, y.strides[:-2]),
    )
    full = [
        layout
        for layout, constant in zip(problem.inputs[2:], problem.is_constant[2:], strict=True)
        if operand_kind(layout, constant, y, len(y.shape) - 1) == "full"
    ]
    return _rows_joined(product, full)


def broadcast_batch(outer: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> Batch:
    """Batch dimensions of one side over the common ones; a broadcast dimension has stride 0."""
    missing = len(outer) - len(shape)
    own = [(1, 0)] * missing + list(zip(shape, strides, strict=True))
    return tuple(
        (extent, stride if have > 1 else 0)
        for extent, (have, stride) in zip(outer, own, strict=True)
    )


def _rows_joined(product: Product, operands: Sequence[Layout]) -> Product:
    """Batch dimensions as further rows, where B has no batch and all strides agree."""
    if any(stride for extent, stride in product.batch_b if extent > 1):
        return product
    sides = [
        (product.batch_a, product.a[0]),
        (product.batch_c, product.c[0]),
        *((tuple(zip(y.shape[:-2], y.strides[:-2], strict=True)), y.strides[-2]) for y in operands),
    ]
    for batch, row_stride in sides:
        rows = product.rows
        for extent, stride in reversed(batch):
            if extent > 1 and stride != rows * row_stride:
                return product
            rows *= extent
    rows = product.rows * product.batch
    return Product(rows, product.columns, product.depth, product.a, product.b, product.c)
