"""Lp pooling: the p-norm of each window, as a depthwise convolution of powers."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import read_window, rounding, spatial_rank
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.pooling import pooled_extent
from builder_host.network.network import Tensor


@operator("LpPool", since=(1, 2, 11, 18, 22))
def lp_pool(node: Node) -> Tensor:
    """(sum of |x|^p)^(1/p); padding counts as zero."""
    x = node.input(0)
    window = read_window(node, node.attr_ints("kernel_shape") or ())
    rule = rounding(node)
    ends = []
    for i, extent in enumerate(x.shape[2:]):
        begin, end, stride = window.pads_begin[i], window.pads_end[i], window.strides[i]
        outputs = pooled_extent(
            extent, window.size[i], stride, begin, end, window.dilations[i], rule
        )
        ends.append((outputs - 1) * stride + window.extent(i) - extent - begin)
    params = ConvolutionParams(
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=tuple(ends),
        dilations=window.dilations,
        groups=x.shape[1],
    )
    p = _order(node)
    node.check_size((x.shape[1], *window.size))
    ones = node.const(np.ones((x.shape[1], 1, *window.size)), x.dtype)
    return _root(node, node.add("convolution", params, _powered(node, x, p), ones), p)


@operator("GlobalLpPool", since=(1, 2, 22))
def global_lp_pool(node: Node) -> Tensor:
    """The p-norm of each channel."""
    x, p = node.input(0), _order(node)
    axes = range(2, 2 + spatial_rank(node))
    if p <= 2:
        return node.reduce("l1" if p == 1 else "l2", x, axes)
    return _root(node, node.reduce("sum", _powered(node, x, p), axes), p)


def _order(node: Node) -> int:
    stated = node.attr_float("p", 2.0) if node.version == 1 else node.attr_int("p", 2)
    p = int(stated)
    if p != stated:
        node.fail(f"attribute 'p' is {stated}; whole numbers are supported")
    if p < 1:
        node.fail(f"attribute 'p' is {p}, must be at least 1")
    return p


def _powered(node: Node, x: Tensor, p: int) -> Tensor:
    if p == 2:
        return node.binary("mul", x, x)
    x = node.unary("abs", x)
    return x if p == 1 else node.binary("pow", x, float(p))


def _root(node: Node, x: Tensor, p: int) -> Tensor:
    if p == 1:
        return x
    return node.unary("sqrt", x) if p == 2 else node.binary("pow", x, 1.0 / p)
