"""Maximum and average pooling over windows and over all of space."""

from __future__ import annotations

from typing import Literal

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import read_window, rounding, spatial_rank
from builder_host.network.layers.pooling import PoolingParams, pooled_extent
from builder_host.network.network import Tensor


@operator("MaxPool", since=(1, 8, 10, 11, 12, 22))
def max_pool(node: Node) -> Tensor:
    """Values only; `storage_order` concerns the indices."""
    node.skip_attrs("storage_order")
    return _pool(node, "max", count_include_pad=False)


@operator("AveragePool", since=(1, 7, 10, 11, 19, 22))
def average_pool(node: Node) -> Tensor:
    """With or without the padding in the divisor."""
    return _pool(node, "average", count_include_pad=bool(node.attr_int("count_include_pad", 0)))


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


def _pool(node: Node, mode: Literal["max", "average"], *, count_include_pad: bool) -> Tensor:
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
    params = PoolingParams(
        mode=mode,
        window=window.size,
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        output_spatial=output,
        dilations=window.dilations,
        count_include_pad=count_include_pad,
    )
    return node.add("pooling", params, x)
