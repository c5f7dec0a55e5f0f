"""Maximum and average pooling over windows and over all of space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import read_window, rounding, spatial_rank
from builder_host.network.layers.max_pool_indices import MaxPoolIndicesParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.pooling import PoolingParams, pooled_extent
from builder_host.network.layers.scatter_elements import ScatterElementsParams
from builder_host.network.network import Tensor


@operator("MaxPool", since=(1, 8, 10, 11, 12, 22))
def max_pool(node: Node) -> Sequence[Tensor]:
    """Values and, where something reads them, their indices."""
    is_column_major = bool(node.attr_int("storage_order", 0))
    params = _params(node, "max", count_include_pad=False)
    outputs = [node.add("pooling", params, node.input(0))]
    if len(node.wanted) > 1 and node.wanted[1]:
        indices = MaxPoolIndicesParams(params, is_column_major)
        outputs.append(node.add("max_pool_indices", indices, node.input(0)))
    return outputs


@operator("MaxUnpool", since=(9, 11, 22))
def max_unpool(node: Node) -> Tensor:
    """Values back at their indices, zeros elsewhere; a stated shape adds zeros at the ends."""
    x, indices = node.input(0), node.input(1)
    size = node.attr_ints("kernel_shape") or ()
    window = read_window(node, size)
    extents = tuple(
        (e - 1) * s + k - b - a
        for e, s, k, b, a in zip(
            x.shape[2:],
            window.strides,
            window.size,
            window.pads_begin,
            window.pads_end,
            strict=True,
        )
    )
    shape = (*x.shape[:2], *extents)
    stated = node.optional_ints(2, "output_shape")
    missing = [] if stated is None else [o - s for o, s in zip(stated, shape, strict=False)]
    if min(extents) < 1 or min(missing, default=0) < 0 or len(missing) not in (0, len(shape)):
        node.fail(f"{x.type} unpools to {shape}, which the output shape {stated} does not hold")
    count = math.prod(shape)
    node.check_size(shape)
    flat = (x.type.num_elems,)
    empty = node.const(np.zeros(count), x.dtype)
    places, values = node.reshape(indices, flat), node.reshape(x, flat)
    y = node.add("scatter_elements", ScatterElementsParams(0), empty, places, values)
    y = node.reshape(y, shape)
    if any(missing):
        y = node.add("pad", PadParams((0,) * len(shape), tuple(missing)), y)
    return y


@operator("AveragePool", since=(1, 7, 10, 11, 19, 22))
def average_pool(node: Node) -> Tensor:
    """With or without the padding in the divisor."""
    counts_padding = bool(node.attr_int("count_include_pad", 0))
    params = _params(node, "average", count_include_pad=counts_padding)
    return node.add("pooling", params, node.input(0))


@operator("GlobalMaxPool", "GlobalAveragePool", since=(1, 22))
def global_pool(node: Node) -> Tensor:
    """One window over all of space."""
    x = node.input(0)
    rank = spatial_rank(node)
    zeros, ones = (0,) * rank, (1,) * rank
    params = PoolingParams(
        mode="max" if node.op_type == "GlobalMaxPool" else "average",
        window=x.shape[2:],
        strides=ones,
        pads_begin=zeros,
        pads_end=zeros,
        output_spatial=ones,
        dilations=ones,
        count_include_pad=False,
    )
    return node.add("pooling", params, x)


def _params(
    node: Node, mode: Literal["max", "average"], *, count_include_pad: bool
) -> PoolingParams:
    x = node.input(0)
    window = read_window(node, node.attr_ints("kernel_shape") or ())
    rule = rounding(node)
    if window.auto_pad != "NOTSET":
        rule = "floor"  # auto_pad states the extents: ceil(I / S), or whole windows only
    output = tuple(
        pooled_extent(
            extent,
            window.size[i],
            window.strides[i],
            window.pads_begin[i],
            window.pads_end[i],
            window.dilations[i],
            rule,
        )
        for i, extent in enumerate(x.shape[2:])
    )
    return PoolingParams(
        mode=mode,
        window=window.size,
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        output_spatial=output,
        dilations=window.dilations,
        count_include_pad=count_include_pad,
    )
