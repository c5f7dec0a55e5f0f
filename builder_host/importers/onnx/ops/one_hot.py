"""OneHot: a comparison with the positions of a new axis."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.select import SelectParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType


@operator("OneHot", since=(9, 11, 28))
def one_hot(node: Node) -> Tensor:
    """Indices from -depth to depth-1; others give the off value everywhere."""
    indices = node.input(0)
    depths = node.constant(1, "depth").ravel()
    if depths.size != 1 or not 0 <= float(depths[0]) < 2**31:
        node.fail(f"depth must be one number of at least 0, got {depths}")
    depth = int(depths[0])
    node.check_size((depth,))
    rank = indices.type.rank + 1
    axis = node.axis(node.attr_int("axis", -1), rank)
    shape = [*indices.shape[:axis], 1, *indices.shape[axis:]]
    places = node.const(
        np.arange(depth, dtype=np.int64).reshape([depth if i == axis else 1 for i in range(rank)])
    )
    wide = node.reshape(node.cast(indices, DataType.INT64), shape)
    negative = node.binary("eq", node.binary("add", wide, float(depth)), places)
    hit = node.binary("or", node.binary("eq", wide, places), negative)
    values = node.input(2)
    off, on = (node.slice(values, (i,), (1,), (1,)) for i in (0, 1))
    return node.add("select", SelectParams(), hit, on, off)
