"""Interp of DeepLab and PSPNet: bilinear with aligned corners."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.resize import ResizeParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.network import Tensor

TYPES = ("Interp",)


def convert(layer: CaffeLayer) -> None:
    """Crop by negative pads, then a linear resize to the extents that the fields tell."""
    layer.require_bottoms(1, 2)
    param = layer.message.interp_param
    bottom = layer.bottoms[0]
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    if param.pad_beg > 0 or param.pad_end > 0:
        raise LayerProblem("pad_beg and pad_end must be 0 or negative (they crop)")
    n, c, h, w = bottom.shape
    cut = param.pad_beg + param.pad_end
    inner = (h + cut, w + cut)
    if min(inner) < 1:
        raise LayerProblem(f"pads {param.pad_beg} and {param.pad_end} leave nothing of {h}x{w}")
    out = _extents(layer, inner)
    source = bottom
    if cut:
        source = _cropped(layer, bottom, -param.pad_beg, inner)
    params = ResizeParams(
        output_shape=(n, c, *out),
        mode="linear",
        coordinate_mode="align_corners",
        nearest_mode="round_prefer_floor",
        scales=(1.0, 1.0, out[0] / inner[0], out[1] / inner[1]),
    )
    layer.emit("resize", params, [source])


def _extents(layer: CaffeLayer, inner: tuple[int, int]) -> tuple[int, int]:
    param = layer.message.interp_param
    zoom, shrink = param.zoom_factor, param.shrink_factor
    if len(layer.bottoms) == 2:
        like = layer.bottoms[1]
        if len(like.shape) != 4:
            raise LayerProblem(f"the second bottom {shape_text(like)} must be NxCxHxW")
        return like.shape[2], like.shape[3]
    if zoom < 1 or shrink < 1:
        raise LayerProblem(f"zoom_factor {zoom} and shrink_factor {shrink} must be at least 1")
    if param.HasField("height") != param.HasField("width"):
        raise LayerProblem("height and width must be stated together")
    if param.HasField("height"):
        if min(param.height, param.width) < 1:
            raise LayerProblem(f"size {param.height}x{param.width} must be at least 1x1")
        return param.height, param.width
    height, width = ((e - 1) // shrink + 1 for e in inner)
    return height + (height - 1) * (zoom - 1), width + (width - 1) * (zoom - 1)


def _cropped(layer: CaffeLayer, bottom: Tensor, start: int, inner: tuple[int, int]) -> Tensor:
    sizes = (*bottom.shape[:2], *inner)
    params = SliceParams((0, 0, start, start), sizes, (1, 1, 1, 1))
    return layer.add("slice", params, [bottom], "crop")
