"""Reshape: 0 copies a dimension, -1 takes what is left; only `num_axes` axes from `axis` on."""

from __future__ import annotations

import math

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem

TYPES = ("Reshape",)


def convert(layer: CaffeLayer) -> None:
    """A reshape, or nothing when the shape stays."""
    param = layer.message.reshape_param
    bottom = layer.bottom
    rank = len(bottom.shape)
    # Here, unlike elsewhere, -1 is the place behind the last axis.
    first = param.axis if param.axis >= 0 else rank + param.axis + 1
    if not 0 <= first <= rank:
        raise LayerProblem(f"axis is {param.axis}, the bottom {shape_text(bottom)} has {rank}")
    if param.num_axes < -1 or first + param.num_axes > rank:
        raise LayerProblem(
            f"axis {param.axis} and num_axes {param.num_axes} go past {shape_text(bottom)}"
        )
    last = rank if param.num_axes == -1 else first + param.num_axes
    middle = _dimensions(list(param.shape.dim), bottom.shape[first:], bottom.shape[first:last])
    shape = (*bottom.shape[:first], *middle, *bottom.shape[last:])
    if math.prod(shape) != math.prod(bottom.shape):
        raise LayerProblem(
            f"shape {list(param.shape.dim)} makes {'x'.join(map(str, shape))} with "
            f"{math.prod(shape)} elements of {shape_text(bottom)} with {math.prod(bottom.shape)}"
        )
    layer.emit_reshape(bottom, shape)


def _dimensions(wanted: list[int], copied: tuple[int, ...], covered: tuple[int, ...]) -> list[int]:
    """`wanted` with 0 and -1 resolved."""
    shape: list[int] = []
    for index, dim in enumerate(wanted):
        if dim == 0 and index >= len(copied):
            raise LayerProblem(f"dim {index} is 0, but there is no dimension to copy")
        if dim < -1:
            raise LayerProblem(f"dim {index} is {dim}, must be -1 or more")
        shape.append(copied[index] if dim == 0 else dim)
    if shape.count(-1) > 1:
        raise LayerProblem(f"shape {wanted} has more than one -1")
    if -1 in shape:
        known = math.prod(d for d in shape if d != -1)
        total = math.prod(covered)
        if known == 0 or total % known:
            raise LayerProblem(
                f"shape {wanted}: {total} elements do not divide by {known} for the -1"
            )
        shape[shape.index(-1)] = total // known
    return shape
