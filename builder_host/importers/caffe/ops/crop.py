"""Crop: the first bottom cut to the extents of the second, from `axis` on."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.slice import SliceParams

TYPES = ("Crop",)


def convert(layer: CaffeLayer) -> None:
    """A slice; `offset` is none (0), one for all, or one per cropped axis."""
    layer.require_bottoms(2)
    param = layer.message.crop_param
    bottom, like = layer.bottoms
    rank = len(bottom.shape)
    axis = layer.axis(param.axis, bottom)
    cropped = rank - axis
    offsets = list(param.offset) or [0]
    if len(offsets) == 1:
        offsets *= cropped
    if len(offsets) != cropped:
        raise LayerProblem(f"{len(offsets)} offsets for the {cropped} axes from {axis} on")
    if len(like.shape) != rank:
        raise LayerProblem(f"bottoms {shape_text(bottom)} and {shape_text(like)} differ in rank")
    starts = (0,) * axis + tuple(offsets)
    sizes = bottom.shape[:axis] + like.shape[axis:]
    for index in range(axis, rank):
        if starts[index] + sizes[index] > bottom.shape[index]:
            raise LayerProblem(
                f"axis {index}: offset {starts[index]} and extent {sizes[index]} of the second "
                f"bottom go past the first, {shape_text(bottom)}"
            )
    layer.emit("slice", SliceParams(starts, sizes, (1,) * rank), [bottom])
