"""Convolution, under its own name and the depthwise names of forks."""

from __future__ import annotations

import math
from typing import Any

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.importers.caffe.windows import Windows, convolution_windows
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.network import Tensor

DEPTHWISE_TYPES = ("ConvolutionDepthwise", "DepthwiseConvolution", "DepthwiseConv")
TYPES = ("Convolution", *DEPTHWISE_TYPES)


def convert(layer: CaffeLayer) -> None:
    """One convolution per bottom, all with the same weights."""
    param = layer.message.convolution_param
    layer.require_bottoms(1, max(1, len(layer.top_names)))
    first = layer.bottoms[0]
    windows = convolution_windows(layer, param, first)
    channels, maps = first.shape[1], param.num_output
    depthwise = layer.message.type in DEPTHWISE_TYPES
    groups = channels if depthwise else param.group
    check_groups(channels, maps, groups)
    fan_in = channels // groups * math.prod(windows.kernel)
    operands = weight_tensors(
        layer, param, (maps, channels // groups, *windows.kernel), maps, fan_in
    )
    for top, bottom in enumerate(layer.bottoms):
        if bottom.shape[1:2] != first.shape[1:2] or len(bottom.shape) != len(first.shape):
            raise LayerProblem(
                f"bottoms {shape_text(first)} and {shape_text(bottom)} cannot share weights"
            )
        params = ConvolutionParams(
            strides=windows.strides,
            pads_begin=windows.pads,
            pads_end=windows.pads,
            dilations=windows.dilations,
            groups=groups,
        )
        check_fits(windows, bottom)
        layer.emit("convolution", params, [bottom, *operands], top)


def check_groups(channels: int, maps: int, groups: int) -> None:
    """Raise LayerProblem unless both channel counts divide by the number of groups."""
    if maps < 1:
        raise LayerProblem(f"num_output is {maps}, must be at least 1")
    if groups < 1 or channels % groups or maps % groups:
        raise LayerProblem(
            f"{channels} channels in and {maps} out do not divide into {groups} groups"
        )


def check_fits(windows: Windows, bottom: Tensor) -> None:
    """Raise LayerProblem when the kernel is larger than the padded bottom."""
    for extent, kernel, pad, dilation in zip(
        bottom.shape[2:], windows.kernel, windows.pads, windows.dilations, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        if reach > extent + 2 * pad:
            raise LayerProblem(
                f"the kernel reaches over {reach} cells, the bottom {shape_text(bottom)} has "
                f"{extent} + 2*{pad} of padding"
            )


def weight_tensors(
    layer: CaffeLayer, param: Any, shape: tuple[int, ...], maps: int, fan_in: int
) -> list[Tensor]:
    """Constants of the weights and, unless `bias_term: false`, of the bias."""
    specs = [BlobSpec("weights", shape, "weights", fan_in)]
    if param.bias_term:
        specs.append(BlobSpec("bias", (maps,), "bias"))
    arrays = layer.weights(specs)
    return [layer.constant(a, s.role) for a, s in zip(arrays, specs, strict=True)]
