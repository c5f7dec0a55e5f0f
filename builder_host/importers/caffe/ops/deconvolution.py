"""Deconvolution: kernel height first, as in BVLC Caffe."""

from __future__ import annotations

import math

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.ops.convolution import check_groups, weight_tensors
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.windows import convolution_windows
from builder_host.network.layers.deconvolution import DeconvolutionParams

TYPES = ("Deconvolution", "DeconvolutionDepthwise", "DepthwiseDeconvolution")


def convert(layer: CaffeLayer) -> None:
    """One transposed convolution per bottom, all with the same weights."""
    param = layer.message.convolution_param
    layer.require_bottoms(1, max(1, len(layer.top_names)))
    first = layer.bottoms[0]
    windows = convolution_windows(layer, param, first)
    channels, maps = first.shape[1], param.num_output
    groups = param.group if layer.message.type == "Deconvolution" else channels
    check_groups(channels, maps, groups)
    # An input cell reaches kernel / stride cells, so this many products meet in an output cell.
    fan_in = channels // groups * max(1, math.prod(windows.kernel) // math.prod(windows.strides))
    operands = weight_tensors(
        layer, param, (channels, maps // groups, *windows.kernel), maps, fan_in
    )
    params = DeconvolutionParams(
        strides=windows.strides,
        pads_begin=windows.pads,
        pads_end=windows.pads,
        dilations=windows.dilations,
        output_padding=(0,) * len(windows.kernel),
        groups=groups,
    )
    for top, bottom in enumerate(layer.bottoms):
        if bottom.shape[1:2] != first.shape[1:2] or len(bottom.shape) != len(first.shape):
            raise LayerProblem(
                f"bottoms {shape_text(first)} and {shape_text(bottom)} cannot share weights"
            )
        layer.emit("deconvolution", params, [bottom, *operands], top)
