"""Resize and its forerunner Upsample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.resize import ResizeParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

_COORDINATES = {
    11: (
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ),
    13: ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"),
    19: (
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    ),
}
_COORDINATES[18] = _COORDINATES[13]
MAX_ANTIALIASED = 100  # an element is then made of 400 others: all of them are in the kernel's text
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@operator("Upsample", since=(1, 7, 9))
def upsample(node: Node) -> Tensor:
    """Scales of rows and columns (1), as attribute (7) or as input (9)."""
    if node.version == 1:
        ones = (1.0,) * (node.input(0).type.rank - 2)
        rows, columns = (node.attr_float(f"{side}_scale", 0.0) for side in ("height", "width"))
        scales: Sequence[float] = (*ones, rows, columns)
    elif node.version < 9:
        scales = node.attr_floats("scales") or ()
    else:
        scales = [float(v) for v in node.constant(1, "scales").ravel()]
    return _asymmetric(node, scales)


@operator("Resize", since=(10,))
def resize_10(node: Node) -> Tensor:
    """The first Resize is Upsample that may shrink."""
    return _asymmetric(node, [float(v) for v in node.constant(1, "scales").ravel()])


@operator("Resize", since=(11, 13, 18, 19))
def resize(node: Node) -> Tensor:
    """With antialiasing one axis after the other, because kernels widen as an axis shrinks."""
    x = node.input(0)
    rank = x.type.rank
    mode = node.choice("mode", "nearest", ("nearest", "linear", "cubic"))
    coordinates = node.choice(
        "coordinate_transformation_mode", "half_pixel", _COORDINATES[node.version]
    )
    nearest = node.choice("nearest_mode", "round_prefer_floor", _NEAREST)
    antialias = bool(node.attr_int("antialias", 0)) and mode != "nearest"
    stated = node.attr_ints("axes")
    axes = tuple(range(rank)) if stated is None else tuple(node.axis(a, rank) for a in stated)
    scales, sizes = _scales_and_sizes(node, x, axes)
    params = ResizeParams(
        output_shape=sizes,
        mode=mode,  # type: ignore[arg-type]
        coordinate_mode=coordinates,
        nearest_mode=nearest,
        scales=scales,
        cubic_coefficient=node.attr_float("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.attr_int("exclude_outside", 0)),
        extrapolation_value=node.attr_float("extrapolation_value", 0.0),
        roi=_roi(node, axes) if coordinates == "tf_crop_and_resize" else (),
        antialias=antialias,
    )
    return _antialiased(node, x, params) if antialias else node.add("resize", params, x)


def _antialiased(node: Node, x: Tensor, params: ResizeParams) -> Tensor:
    """One resize per axis; integers are rounded once, at the end."""
    if params.coordinate_mode == "tf_crop_and_resize":
        node.fail("antialias=1 with tf_crop_and_resize is not supported; export without it")
    if min(params.scales) < 1 / MAX_ANTIALIASED:
        node.fail(f"antialias=1 shrinks by at most {MAX_ANTIALIASED}, scales are {params.scales}")
    dtype = x.dtype
    y = x if dtype.is_float else node.cast(x, DataType.FLOAT32)
    for axis, (size, scale) in enumerate(zip(params.output_shape, params.scales, strict=True)):
        if (size, scale) == (y.shape[axis], 1.0):
            continue
        shape, scales = list(y.shape), [1.0] * y.type.rank
        shape[axis], scales[axis] = size, scale
        step = replace(params, output_shape=tuple(shape), scales=tuple(scales))
        y = node.add("resize", step, y)
    return node.cast(y, dtype)


def _asymmetric(node: Node, scales: Sequence[float]) -> Tensor:
    x = node.input(0)
    mode = node.choice("mode", "nearest", ("nearest", "linear", "bilinear"))
    checked = _checked_scales(node, scales, x.type.rank)
    if mode != "nearest":
        return _asymmetric_step(node, x, checked, "linear", "floor")
    # As ONNX Runtime and the cases of opset 10 do: down rounds up, up rounds down.
    down, up = tuple(min(s, 1.0) for s in checked), tuple(max(s, 1.0) for s in checked)
    x = _asymmetric_step(node, x, down, "nearest", "ceil")
    return _asymmetric_step(node, x, up, "nearest", "floor")


def _asymmetric_step(
    node: Node,
    x: Tensor,
    scales: tuple[float, ...],
    mode: Literal["nearest", "linear"],
    nearest: str,
) -> Tensor:
    if all(s == 1.0 for s in scales):
        return x
    extents = _extents(x.shape, scales)
    return node.add("resize", ResizeParams(extents, mode, "asymmetric", nearest, scales), x)


def _checked_scales(node: Node, scales: Sequence[float], count: int) -> tuple[float, ...]:
    if len(scales) != count or not all(0 < s < math.inf for s in scales):
        node.fail(f"scales are {tuple(scales)}; {count} positive numbers are needed")
    return tuple(scales)


def _extents(shape: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    return tuple(math.floor(d * s) for d, s in zip(shape, scales, strict=True))


def _scales_and_sizes(
    node: Node, x: Tensor, axes: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Scale and output extent per dimension of x."""
    policy = node.choice(
        "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller")
    )
    scales, sizes = [1.0] * x.type.rank, list(x.shape)
    given = node.optional(2)
    if given is not None and given.type.num_elems:
        if node.optional(3) is not None and node.input(3).type.num_elems:
            node.fail("both scales and sizes are given; keep one")
        stated = [float(v) for v in node.constant(2, "scales").ravel()]
        for axis, scale in zip(axes, _checked_scales(node, stated, len(axes)), strict=True):
            scales[axis], sizes[axis] = scale, math.floor(x.shape[axis] * scale)
        return tuple(scales), tuple(sizes)
    wanted = node.constant_ints(3, "sizes")
    if len(wanted) != len(axes) or min(wanted, default=1) < 1:
        node.fail(f"sizes are {wanted}; {len(axes)} positive extents are needed")
    ratios = [size / x.shape[axis] for axis, size in zip(axes, wanted, strict=True)]
    if policy != "stretch" and ratios:
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        ratios = [ratio] * len(axes)
        wanted = tuple(math.floor(x.shape[axis] * ratio + 0.5) for axis in axes)
    for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
        scales[axis], sizes[axis] = ratio, size
    return tuple(scales), tuple(sizes)


def _roi(node: Node, axes: tuple[int, ...]) -> tuple[float, ...]:
    rank = node.input(0).type.rank
    stated = [float(v) for v in node.constant(1, "roi").ravel()]
    if len(stated) != 2 * len(axes):
        node.fail(f"roi has {len(stated)} values, {len(axes)} dimensions need {2 * len(axes)}")
    starts, ends = [0.0] * rank, [1.0] * rank
    for place, axis in enumerate(axes):
        starts[axis], ends[axis] = stated[place], stated[place + len(axes)]
    return (*starts, *ends)
