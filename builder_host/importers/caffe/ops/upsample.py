"""Upsample: every cell repeated (YOLO), or put back where a mask says (SegNet)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.ops.pooling import first_cells
from builder_host.importers.caffe.problem import LayerProblem, check_constant_size
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.resize import ResizeParams
from builder_host.network.layers.scatter_elements import ScatterElementsParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

TYPES = ("Upsample",)


def convert(layer: CaffeLayer) -> None:
    """A nearest resize by whole factors; with the mask of a pooling layer its inverse."""
    layer.require_bottoms(1, 2)
    param = layer.message.upsample_param
    bottom = layer.bottoms[0]
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    high = param.scale_h if param.HasField("scale_h") else param.scale
    wide = param.scale_w if param.HasField("scale_w") else param.scale
    if min(high, wide) < 1:
        raise LayerProblem(f"scale is {high}x{wide}, must be at least 1")
    n, c, h, w = bottom.shape
    if len(layer.bottoms) == 2:
        _put_back(layer, *_extents(param, h * high, w * wide))
        return
    for field in ("upsample_h", "upsample_w", "pad_out_h", "pad_out_w"):
        if param.HasField(field):
            raise LayerProblem(f"{field} belongs to the form with a mask, a second bottom")
    params = ResizeParams(
        output_shape=(n, c, h * high, w * wide),
        mode="nearest",
        coordinate_mode="asymmetric",
        nearest_mode="floor",
        scales=(1.0, 1.0, float(high), float(wide)),
    )
    layer.emit("resize", params, [bottom])


def _extents(param: Any, high: int, wide: int) -> tuple[int, int]:
    """Extents of the top: stated, or the scaled ones less what is padded."""
    if param.HasField("upsample_h") != param.HasField("upsample_w"):
        raise LayerProblem("upsample_h and upsample_w must be stated together")
    if param.HasField("upsample_h"):
        return param.upsample_h, param.upsample_w
    return high - param.pad_out_h, wide - param.pad_out_w


def _put_back(layer: CaffeLayer, high: int, wide: int) -> None:
    """Values at the mask's positions within maps of the top, zeros elsewhere.

    A position outside of its map changes nothing; SegNet's own layer ends the program.
    """
    values, mask = layer.bottoms
    if mask.shape != values.shape:
        raise LayerProblem(
            f"the mask {shape_text(mask)} must have the shape of the values {shape_text(values)}"
        )
    batch, channels, *_ = values.shape
    top = (batch, channels, high, wide)
    check_constant_size("the top", top)
    if min(high, wide) < 1:
        raise LayerProblem(f"the top would have the shape {'x'.join(map(str, top))}")
    first = first_cells(layer, batch * channels, high * wide, (batch, channels, 1, 1))
    inside = layer.add("cast", CastParams(DataType.INT64), [mask], "positions")
    is_inside = Binary(
        "and",
        Binary("ge", Input(0), Const(0.0)),
        Binary("lt", Input(0), Const(float(high * wide))),
    )
    nowhere = Const(float(math.prod(top)))  # one past the end: the scatter leaves it out
    place = Select(is_inside, Binary("add", Input(0), Input(1)), nowhere)
    places = layer.add("pointwise", PointwiseParams(place), [inside, first], "places")
    count = values.type.num_elems
    flat: list[Tensor] = [layer.constant(np.zeros(math.prod(top)), "empty")]
    for tensor, part in ((places, "indices"), (values, "values")):
        flat.append(layer.reshaped(tensor, (count,), part))
    scattered = layer.add("scatter_elements", ScatterElementsParams(0), flat, "scatter")
    layer.emit_reshape(scattered, top)
