"""Shape and Size: known at build time."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25))
def shape(node: Node) -> Tensor:
    """The shape, or a part of it."""
    extents = node.input(0).shape
    start, end = node.attr_int("start", 0), node.attr_int("end", len(extents))
    return node.const(np.asarray(extents[slice(start, end)], np.int64))


@operator("Size", since=(1, 13, 19, 21, 23, 24, 25))
def size(node: Node) -> Tensor:
    """Number of elements."""
    return node.const(np.asarray(node.input(0).type.num_elems, np.int64))
