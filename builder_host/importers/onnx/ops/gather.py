"""Gather, GatherElements and GatherND; known positions become slices where they can."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import Array
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.gather_elements import GatherElementsParams
from builder_host.network.layers.gather_nd import GatherNdParams
from builder_host.network.network import Tensor


@operator("Gather", since=(1, 11, 13))
def gather(node: Node) -> Tensor:
    """Evenly spaced known positions make a slice, which needs no copy."""
    x, indices = node.input(0), node.input(1)
    axis = node.axis(node.attr_int("axis", 0), x.type.rank)
    if indices.values is None:
        return node.add("gather", GatherParams(axis), x, indices)
    places = _checked(node, indices.values, x.shape[axis], axis)
    step = _even_step(places.ravel())
    if step is None:
        return node.add("gather", GatherParams(axis), x, node.const(places))
    starts, sizes, strides = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
    starts[axis], sizes[axis], strides[axis] = int(places.ravel()[0]), places.size, step
    part = node.slice(x, starts, sizes, strides)
    return node.reshape(part, (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


@operator("GatherElements", since=(11, 13))
def gather_elements(node: Node) -> Tensor:
    """Known positions become positions in the flattened tensor."""
    x = node.input(0)
    axis = node.axis(node.attr_int("axis", 0), x.type.rank)
    if node.input(1).values is None:
        return node.add("gather_elements", GatherElementsParams(axis), x, node.input(1))
    places = _checked(node, node.constant(1, "indices"), x.shape[axis], axis)
    if places.ndim != x.type.rank:
        node.fail(f"indices of rank {places.ndim} do not fit {x.type}")
    grid: list[Array] = list(np.indices(places.shape, dtype=np.int64))
    grid[axis] = places
    flat = np.asarray(np.ravel_multi_index(tuple(grid), x.shape), np.int64)
    values = node.reshape(x, (x.type.num_elems,))
    y = node.add("gather", GatherParams(0), values, node.const(flat.ravel()))
    return node.reshape(y, places.shape)


@operator("GatherND", since=(11, 12, 13))
def gather_nd(node: Node) -> Tensor:
    """Known positions become rows of the data, flattened."""
    x = node.input(0)
    batch = node.attr_int("batch_dims", 0)
    if node.input(1).values is None:
        return node.add("gather_nd", GatherNdParams(batch), x, node.input(1))
    indices = node.constant(1, "indices").astype(np.int64)
    if not indices.ndim or not 0 <= batch < indices.ndim:
        node.fail(f"batch_dims {batch} does not fit indices of shape {indices.shape}")
    depth = batch + indices.shape[-1]
    if depth > x.type.rank or indices.shape[:batch] != x.shape[:batch]:
        node.fail(f"indices of shape {indices.shape} do not fit {x.type}")
    grid: list[Array] = list(np.indices(indices.shape[:-1], dtype=np.int64)[:batch])
    for place in range(indices.shape[-1]):
        grid.append(_checked(node, indices[..., place], x.shape[batch + place], batch + place))
    rows = np.ravel_multi_index(tuple(grid), x.shape[:depth]) if grid else np.zeros((), np.int64)
    data = node.reshape(x, (math.prod(x.shape[:depth]), *x.shape[depth:]))
    return node.add("gather", GatherParams(0), data, node.const(np.asarray(rows, np.int64)))


def _checked(node: Node, indices: Array, extent: int, axis: int) -> Array:
    """Positions made non-negative; refuses those out of range."""
    if indices.dtype.kind not in "iu":
        node.fail(f"indices must be integers, got {indices.dtype}")
    places = indices.astype(np.int64)
    if places.size and not -extent <= places.min() <= places.max() < extent:
        node.fail(
            f"indices from {places.min()} to {places.max()} leave dimension {axis}, "
            f"whose extent is {extent}"
        )
    return np.where(places < 0, places + extent, places)


def _even_step(places: Array) -> int | None:
    """Distance between neighbours when it is always the same."""
    if not places.size:
        return None
    steps = np.unique(np.diff(places))
    if not steps.size:
        return 1
    return int(steps[0]) if steps.size == 1 and steps[0] != 0 else None
