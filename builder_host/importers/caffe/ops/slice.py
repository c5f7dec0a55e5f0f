"""Slice: the bottom cut along one axis, at `slice_point`s or in equal parts."""

from __future__ import annotations

from itertools import pairwise

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.slice import SliceParams

TYPES = ("Slice",)


def convert(layer: CaffeLayer) -> None:
    """One slice layer per top."""
    param = layer.message.slice_param
    bottom = layer.bottom
    if param.HasField("axis") and param.HasField("slice_dim"):
        raise LayerProblem("axis and slice_dim are both stated; keep axis")
    stated = param.slice_dim if param.HasField("slice_dim") else param.axis
    axis = layer.axis(stated, bottom)
    extent, count = bottom.shape[axis], len(layer.top_names)
    points = list(param.slice_point)
    if points:
        if len(points) != count - 1:
            raise LayerProblem(f"{len(points)} slice points for {count} tops; one less is needed")
        bounds = [0, *points, extent]
    else:
        if extent % count:
            raise LayerProblem(
                f"axis {axis} of {shape_text(bottom)} does not divide into {count} equal tops"
            )
        bounds = [extent // count * i for i in range(count + 1)]
    if any(low >= high for low, high in pairwise(bounds)):
        raise LayerProblem(f"slice points {points} do not rise within 0 .. {extent}")
    if count == 1:
        layer.alias(bottom)
        return
    rank = len(bottom.shape)
    for top in range(count):
        starts = tuple(bounds[top] if a == axis else 0 for a in range(rank))
        sizes = tuple(
            bounds[top + 1] - bounds[top] if a == axis else bottom.shape[a] for a in range(rank)
        )
        layer.emit("slice", SliceParams(starts, sizes, (1,) * rank), [bottom], top)
