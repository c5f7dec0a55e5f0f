"""Compress, NonZero and Unique: results whose extent depends on values.

Known values give their exact extent. NonZero of values that only the device knows gets as many
columns as the input has elements; unused columns hold -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.non_zero import NonZeroParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType


@operator("NonZero", since=(9, 13))
def non_zero(node: Node) -> Tensor:
    """Coordinates of the elements that are not zero."""
    x = node.input(0)
    if x.values is not None:
        return node.const(np.stack(np.nonzero(np.atleast_1d(x.values))).astype(np.int64))
    return node.add("non_zero", NonZeroParams(x.type.num_elems), x)


@operator("Compress", since=(9, 11, 28))
def compress(node: Node) -> Tensor:
    """The slices (or elements, without an axis) for which a known condition holds."""
    x = node.input(0)
    condition = node.constant(1, "condition").ravel()
    axis = 0
    if node.has_attr("axis"):
        axis = node.axis(node.attr_int("axis", 0), x.type.rank)
    else:
        x = node.reshape(x, (x.type.num_elems,))
    if condition.size > x.shape[axis]:
        node.fail(f"the condition has {condition.size} values, axis {axis} has {x.shape[axis]}")
    return node.add("gather", GatherParams(axis), x, node.const(np.flatnonzero(condition)))


@operator("Unique", since=(11, 28))
def unique(node: Node) -> Sequence[Tensor]:
    """Of known values only: sorted, or in the order of first occurrence."""
    values = node.constant(0, "X")
    is_sorted = bool(node.attr_int("sorted", 1))
    axis = None
    if node.has_attr("axis"):
        axis = node.axis(node.attr_int("axis", 0), values.ndim)
    wide = values.astype(np.float64) if node.input(0).dtype is DataType.BFLOAT16 else values
    found, first, inverse, counts = np.unique(
        wide, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    order = np.arange(first.size) if is_sorted else np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    found = np.take(found, order, axis=axis or 0)
    places = (first[order], rank[inverse.ravel()], counts[order])
    outputs = [node.const(found, node.input(0).dtype)]
    return [*outputs, *(node.const(np.asarray(p, np.int64)) for p in places)]
