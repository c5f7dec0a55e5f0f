"""Operators that give the same elements another shape."""

from __future__ import annotations

import math

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Reshape", since=(1, 5, 13, 14, 19, 21, 23, 24, 25))
def reshape(node: Node) -> Tensor:
    """0 copies a dimension (unless allowzero), one -1 is inferred."""
    x = node.input(0)
    stated = node.attr_ints("shape") if node.version == 1 else node.constant_ints(1, "shape")
    wanted = list(stated or ())
    if not node.attr_int("allowzero", 0):
        for i, extent in enumerate(wanted):
            if extent == 0 and i >= x.type.rank:
                node.fail(f"shape {tuple(wanted)} copies dimension {i}, but the input is {x.type}")
            wanted[i] = extent or x.shape[i]
    inferred = [i for i, extent in enumerate(wanted) if extent == -1]
    if len(inferred) > 1 or min(wanted, default=1) < -1:
        node.fail(f"shape {tuple(wanted)} may hold one -1 and no other negative value")
    if inferred:
        rest = math.prod(extent for extent in wanted if extent != -1)
        if not rest or x.type.num_elems % rest:
            node.fail(f"{x.type} with {x.type.num_elems} elements does not fit {tuple(wanted)}")
        wanted[inferred[0]] = x.type.num_elems // rest
    return node.reshape(x, wanted)


@operator("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25))
def flatten(node: Node) -> Tensor:
    """A matrix of the dimensions before `axis` and those from it on."""
    x = node.input(0)
    stated = node.attr_int("axis", 1)
    axis = stated if stated == x.type.rank else node.axis(stated, x.type.rank)
    return node.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Squeeze", since=(1, 11, 13, 21, 23, 24, 25))
def squeeze(node: Node) -> Tensor:
    """Drops the given dimensions, or all of extent 1."""
    x = node.input(0)
    stated = node.attr_ints("axes") if node.version < 13 else node.optional_ints(1, "axes")
    if stated is None:
        return node.reshape(x, [extent for extent in x.shape if extent != 1])
    axes = node.axes(stated, x.type.rank)
    for axis in axes:
        if x.shape[axis] != 1:
            node.fail(f"dimension {axis} of {x.type} has extent {x.shape[axis]}, not 1")
    return node.reshape(x, [extent for i, extent in enumerate(x.shape) if i not in axes])


@operator("Unsqueeze", since=(1, 11, 13, 21, 23, 24, 25))
def unsqueeze(node: Node) -> Tensor:
    """Inserts dimensions of extent 1."""
    x = node.input(0)
    stated = node.attr_ints("axes") if node.version < 13 else node.constant_ints(1, "axes")
    stated = stated or ()
    rank = x.type.rank + len(stated)
    axes = node.axes(stated, rank)
    rest = iter(x.shape)
    return node.reshape(x, [1 if i in axes else next(rest) for i in range(rank)])
