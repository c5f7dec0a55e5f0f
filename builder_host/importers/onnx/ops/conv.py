"""Convolution."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import check_kernel_shape, read_window
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.network import Tensor


@operator("Conv", since=(1, 11, 22))
def conv(node: Node) -> Tensor:
    """Any spatial rank, groups, optional bias."""
    x, w, b = node.input(0), node.input(1), node.optional(2)
    size = w.shape[2:]
    check_kernel_shape(node, size)
    window = read_window(node, size)
    params = ConvolutionParams(
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        dilations=window.dilations,
        groups=node.attr_int("group", 1),
    )
    return node.add("convolution", params, x, w, *([] if b is None else [b]))
