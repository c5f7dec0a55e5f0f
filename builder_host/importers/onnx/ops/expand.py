"""Expand and Tile: repetition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.definition import evaluate_shape
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.network import Tensor
from builder_host.network.tensor_type import MAX_RANK

# A leading dimension, and two for each axis.
_AXES_AT_ONCE = (MAX_RANK - 1) // 2


@operator("Expand", since=(8, 13))
def expand(node: Node) -> Tensor:
    """Broadcast in both directions: extents of 1 in the shape keep those of the tensor."""
    x = node.input(0)
    wanted = node.constant_ints(1, "shape")
    if min(wanted, default=0) < 0:
        node.fail(f"shape {wanted} must not be negative")
    shape = evaluate_shape(x.shape, wanted)
    return x if shape == x.shape else node.add("broadcast", BroadcastParams(shape), x)


@operator("Tile", since=(1, 6, 13))
def tile(node: Node) -> Tensor:
    """Copies one behind the other, along a few axes at once so that the rank stays in bounds."""
    x = node.input(0)
    repeats = node.constant_ints(1, "repeats")
    if node.version == 1:  # one axis, and how often
        axis = node.axis(node.constant_ints(2, "axis")[0], x.type.rank)
        repeats = tuple(repeats[0] if d == axis else 1 for d in range(x.type.rank))
    if len(repeats) != x.type.rank or min(repeats, default=1) < 0:
        node.fail(f"repeats {repeats} do not fit {x.type}")
    axes = [axis for axis, repeat in enumerate(repeats) if repeat != 1]
    for first in range(0, len(axes), _AXES_AT_ONCE):
        x = _tiled(node, x, {axis: repeats[axis] for axis in axes[first : first + _AXES_AT_ONCE]})
    return x


def _tiled(node: Node, x: Tensor, repeats: Mapping[int, int]) -> Tensor:
    """Each axis gets a broadcast dimension before it and takes in the dimensions behind it."""
    axes = [*repeats, x.type.rank]
    narrow, wide = [math.prod(x.shape[: axes[0]])], [math.prod(x.shape[: axes[0]])]
    for axis, following in itertools.pairwise(axes):
        extent = math.prod(x.shape[axis:following])
        narrow += [1, extent]
        wide += [repeats[axis], extent]
    spread = node.add("broadcast", BroadcastParams(tuple(wide)), node.reshape(x, narrow))
    result = [extent * repeats.get(axis, 1) for axis, extent in enumerate(x.shape)]
    return node.reshape(spread, result)
