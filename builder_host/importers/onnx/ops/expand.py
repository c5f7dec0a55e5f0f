"""Expand and Tile: repetition."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.definition import evaluate_shape
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.network import Tensor


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
    """Each repeated dimension gets a broadcast dimension before it, then both become one."""
    x = node.input(0)
    repeats = node.constant_ints(1, "repeats")
    if node.version == 1:  # one axis, and how often
        axis = node.axis(node.constant_ints(2, "axis")[0], x.type.rank)
        repeats = tuple(repeats[0] if d == axis else 1 for d in range(x.type.rank))
    if len(repeats) != x.type.rank or min(repeats, default=1) < 0:
        node.fail(f"repeats {repeats} do not fit {x.type}")
    split: list[int] = []
    wide: list[int] = []
    for extent, repeat in zip(x.shape, repeats, strict=True):
        if repeat != 1:
            split.append(1)
            wide.append(repeat)
        split.append(extent)
        wide.append(extent)
    result = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
    if result == x.shape:
        return x
    spread = node.add("broadcast", BroadcastParams(tuple(wide)), node.reshape(x, split))
    return node.reshape(spread, result)
