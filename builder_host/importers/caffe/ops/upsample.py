"""Upsample of YOLO forks: every cell repeated."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.resize import ResizeParams

TYPES = ("Upsample",)


def convert(layer: CaffeLayer) -> None:
    """A nearest resize by whole factors. The form with a pooling mask cannot be imported."""
    if len(layer.bottoms) == 2:
        raise LayerProblem("a second bottom (the mask of a pooling layer) cannot be imported")
    param = layer.message.upsample_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    if param.HasField("upsample_h") or param.HasField("upsample_w"):
        raise LayerProblem("upsample_h and upsample_w belong to the form with a mask")
    high = param.scale_h if param.HasField("scale_h") else param.scale
    wide = param.scale_w if param.HasField("scale_w") else param.scale
    if min(high, wide) < 1:
        raise LayerProblem(f"scale is {high}x{wide}, must be at least 1")
    n, c, h, w = bottom.shape
    params = ResizeParams(
        output_shape=(n, c, h * high, w * wide),
        mode="nearest",
        coordinate_mode="asymmetric",
        nearest_mode="floor",
        scales=(1.0, 1.0, float(high), float(wide)),
    )
    layer.emit("resize", params, [bottom])
