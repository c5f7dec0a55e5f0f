"""Operators of detectors: NonMaxSuppression, RoiAlign, GridSample, DeformConv."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import read_window
from builder_host.network.layers.box_selection import BoxSelectionParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.deformable_convolution import DeformableConvolutionParams
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.grid_sample import GridSampleParams
from builder_host.network.layers.non_zero import NonZeroParams
from builder_host.network.layers.roi_align import RoiAlignParams
from builder_host.network.layers.roi_pool import RoiPoolParams
from builder_host.network.layers.select import SelectParams
from builder_host.network.network import Tensor

_SAMPLE_MODES = {
    16: {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"},
    20: {"linear": "linear", "nearest": "nearest", "cubic": "cubic"},
}
_SAMPLE_MODES[22] = _SAMPLE_MODES[20]


@operator("NonMaxSuppression", since=(10, 11))
def non_max_suppression(node: Node) -> Tensor:
    """Rows (batch, class, box) as far as there are any, then rows of -1.

    A plan has fixed shapes: the result has as many rows as could be selected at most.
    """
    boxes, scores = node.input(0), node.input(1)
    if scores.type.rank != 3:
        node.fail(f"scores {scores.type} must have batch, classes and boxes")
    batches, classes, count = scores.shape
    most = min(max(int(_number(node, 2, "max_output_boxes_per_class", 0)), 0), count)
    if most * batches * classes == 0:
        return node.const(np.zeros((0, 3), np.int64))
    threshold = node.optional(4)
    params = BoxSelectionParams(
        most,
        _number(node, 3, "iou_threshold", 0.0),
        None if threshold is None else _number(node, 4, "score_threshold", 0.0),
        is_centred=bool(node.attr_int("center_point_box", 0)),
    )
    selected = node.add("box_selection", params, boxes, scores)
    rows = most * batches * classes
    used = node.binary("ge", selected, 0.0)
    places = node.add("non_zero", NonZeroParams(rows), used)
    batch, number, rank = (node.slice(places, (d, 0), (1, rows), (1, 1)) for d in range(3))
    flat = node.binary("add", node.binary("mul", batch, float(classes)), number)
    flat = node.binary("add", node.binary("mul", flat, float(most)), rank)
    box = node.add("gather", GatherParams(0), node.reshape(selected, (rows,)), flat)
    is_row = node.binary("ge", batch, 0.0)
    box = node.add("select", SelectParams(), is_row, box, node.const(-1, box.dtype))
    return node.transpose(
        node.add("concatenation", ConcatenationParams(0), batch, number, box), (1, 0)
    )


def _number(node: Node, place: int, what: str, default: float) -> float:
    if node.optional(place) is None:
        return default
    values = node.constant(place, what).ravel()
    if values.size != 1 or math.isnan(float(values[0])):
        node.fail(f"{what} must be one number, got {values}")
    return float(values[0])


@operator("RoiAlign", since=(10, 16, 22))
def roi_align(node: Node) -> Tensor:
    """Version 10 has no half-pixel shift."""
    mode = node.choice("mode", "avg", ("avg", "max"))
    coordinates = "output_half_pixel"
    if node.version >= 16:
        known = ("half_pixel", "output_half_pixel")
        coordinates = node.choice("coordinate_transformation_mode", "half_pixel", known)
    params = RoiAlignParams(
        "average" if mode == "avg" else "max",
        (node.attr_int("output_height", 1), node.attr_int("output_width", 1)),
        node.attr_int("sampling_ratio", 0),
        node.attr_float("spatial_scale", 1.0),
        half_pixel=coordinates == "half_pixel",
    )
    return node.add("roi_align", params, node.input(0), node.input(1), node.input(2))


@operator("MaxRoiPool", since=(1, 22))
def max_roi_pool(node: Node) -> Tensor:
    """Regions name their image themselves."""
    size = node.attr_ints("pooled_shape") or ()
    if len(size) != 2:
        node.fail(f"pooled_shape {size} must have two extents")
    params = RoiPoolParams((size[0], size[1]), node.attr_float("spatial_scale", 1.0))
    return node.add("roi_pool", params, node.input(0), node.input(1))


@operator("GridSample", since=(16, 20, 22))
def grid_sample(node: Node) -> Tensor:
    """Modes changed their names with version 20."""
    modes = _SAMPLE_MODES[node.version]
    params = GridSampleParams(
        modes[node.choice("mode", next(iter(modes)), tuple(modes))],  # type: ignore[arg-type]
        node.choice("padding_mode", "zeros", ("zeros", "border", "reflection")),  # type: ignore[arg-type]
        align_corners=bool(node.attr_int("align_corners", 0)),
    )
    x, grid = node.input(0), node.input(1)
    return node.add("grid_sample", params, x, node.cast(grid, x.dtype))


@operator("DeformConv", since=(19, 22))
def deform_conv(node: Node) -> Tensor:
    """Two spatial dimensions; bias and mask may be left out."""
    x, weights, offset = node.input(0), node.input(1), node.input(2)
    if x.type.rank != 4:
        node.fail(f"input {x.type} must have two spatial dimensions")
    window = read_window(node, node.attr_ints("kernel_shape") or weights.shape[2:])
    bias, mask = node.optional(3), node.optional(4)
    params = DeformableConvolutionParams(
        strides=(window.strides[0], window.strides[1]),
        pads_begin=(window.pads_begin[0], window.pads_begin[1]),
        pads_end=(window.pads_end[0], window.pads_end[1]),
        dilations=(window.dilations[0], window.dilations[1]),
        groups=node.attr_int("group", 1),
        offset_groups=node.attr_int("offset_group", 1),
        has_mask=mask is not None,
        has_bias=bias is not None,
    )
    inputs = [t for t in (x, weights, offset, mask, bias) if t is not None]
    return node.add("deformable_convolution", params, *inputs)
