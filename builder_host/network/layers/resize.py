"""Resize: interpolation per axis by the rules of ONNX Resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs, require_per_dim
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]

MODES = ("nearest", "linear", "cubic")
COORDINATE_MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True, slots=True)
class ResizeParams:
    """Names as in ONNX.

    Attributes:
        output_shape: all dimensions.
        scales: output extent / input extent as the model states it, one per dimension.
        cubic_coefficient: `a` of the cubic kernel.
        exclude_outside: cubic taps outside the tensor get weight 0, the rest is renormalised.
        extrapolation_value: what tf_crop_and_resize writes where it reads outside.
        roi: starts, then ends, per dimension, normalised; tf_crop_and_resize only.
        antialias: linear and cubic kernels are as much wider as an axis shrinks.
    """

    output_shape: tuple[int, ...]
    mode: Literal["nearest", "linear", "cubic"]
    coordinate_mode: str
    nearest_mode: str
    scales: tuple[float, ...]
    cubic_coefficient: float = -0.75
    exclude_outside: bool = False
    extrapolation_value: float = 0.0
    roi: tuple[float, ...] = ()
    antialias: bool = False


class Resize:
    """x -> y of output_shape; an axis of equal extent and scale 1 is copied."""

    kind = "resize"
    params_type = ResizeParams

    def infer(self, params: ResizeParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check modes and counts."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require_per_dim(params.output_shape, x.rank, "output_shape")
        require_per_dim(params.scales, x.rank, "scales")
        for value, known, what in (
            (params.mode, MODES, "mode"),
            (params.coordinate_mode, COORDINATE_MODES, "coordinate_mode"),
            (params.nearest_mode, NEAREST_MODES, "nearest_mode"),
        ):
            require(value in known, f"{what} '{value}' is not one of {', '.join(known)}")
        require(all(s > 0 for s in params.scales), f"scales {params.scales} must be positive")
        require(
            all(
                o >= 0 and (o == 0 or i > 0)
                for o, i in zip(params.output_shape, x.shape, strict=True)
            ),
            f"{x} cannot be resized to {params.output_shape}",
        )
        if params.coordinate_mode == "tf_crop_and_resize":
            require(
                len(params.roi) == 2 * x.rank,
                f"roi has {len(params.roi)} values, rank {x.rank} needs {2 * x.rank}",
            )
        return [TensorType(params.output_shape, x.dtype)]

    def reference(self, params: ResizeParams, inputs: Sequence[Array]) -> list[Array]:
        """One axis after the other, in float64."""
        x = np.asarray(inputs[0])
        integer = x.dtype.kind in "iu"
        y = x if params.mode == "nearest" else x.astype(np.float64)
        outside = np.zeros(params.output_shape, dtype=bool)
        for axis in range(x.ndim):
            if is_copied(params, axis, x.shape[axis]):
                continue
            indices, weights = axis_taps(params, axis, x.shape[axis])
            if params.mode == "nearest":
                y = np.take(y, indices[:, 0], axis=axis)
            else:
                y = _interpolated(y, axis, indices, weights)
            beyond = is_outside(params, axis, x.shape[axis])
            outside |= beyond.reshape(-1, *(1,) * (x.ndim - axis - 1))
        if outside.any():
            y = np.where(outside, params.extrapolation_value, y)
        if integer and y.dtype.kind == "f":
            y = np.trunc(y).astype(np.int64)
        return [y]


def _interpolated(x: Array, axis: int, indices: Array, weights: Array) -> Array:
    """Sum over taps of weights[:, t] * x[indices[:, t]] along one axis."""
    wide = (-1, *(1,) * (x.ndim - axis - 1))
    total: Array = np.zeros(())
    for tap in range(indices.shape[1]):
        total = total + weights[:, tap].reshape(wide) * np.take(x, indices[:, tap], axis=axis)
    return total


def is_copied(params: ResizeParams, axis: int, extent: int) -> bool:
    """Whether an axis passes through unchanged."""
    if params.coordinate_mode == "tf_crop_and_resize":
        rank = len(params.output_shape)
        full = params.roi[axis] == 0.0 and params.roi[rank + axis] == 1.0
        return full and extent == params.output_shape[axis]
    return extent == params.output_shape[axis] and params.scales[axis] == 1.0


def source_coordinates(params: ResizeParams, axis: int, extent: int) -> Array:
    """Coordinate in the input of each output position along one axis (float64)."""
    out = params.output_shape[axis]
    scale = params.scales[axis]
    x = np.arange(out, dtype=np.float64)
    match params.coordinate_mode:
        case "half_pixel":
            return (x + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = out / (scale * extent)
            return extent / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
        case "align_corners":
            return x * (extent - 1) / (out - 1) if out > 1 else np.zeros(out)
        case "asymmetric":
            return x / scale
        case "tf_half_pixel_for_nn":
            return (x + 0.5) / scale
        case _:
            start, end = params.roi[axis], params.roi[len(params.output_shape) + axis]
            if out > 1:
                return start * (extent - 1) + x * (end - start) * (extent - 1) / (out - 1)
            return np.full(out, 0.5 * (start + end) * (extent - 1))


def is_outside(params: ResizeParams, axis: int, extent: int) -> Array:
    """For each output position whether extrapolation_value is written (bool)."""
    if params.coordinate_mode != "tf_crop_and_resize":
        return np.zeros(params.output_shape[axis], dtype=bool)
    where = source_coordinates(params, axis, extent)
    return np.asarray((where < 0) | (where > extent - 1))


def axis_taps(params: ResizeParams, axis: int, extent: int) -> tuple[Array, Array]:
    """What each output position along an axis reads.

    Args:
        params: of the layer.
        axis: which dimension.
        extent: input extent of it.

    Returns:
        Indices (int64, inside 0..extent-1) and weights (float64), both [output extent, taps] with
        1 tap for nearest, 2 for linear, 4 for cubic; more where antialiasing widens the kernel.
    """
    where = source_coordinates(params, axis, extent)
    if params.mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(where - 0.5),
            "round_prefer_ceil": np.floor(where + 0.5),
            "floor": np.floor(where),
            "ceil": np.ceil(where),
        }[params.nearest_mode]
        indices = np.clip(rounded, 0, extent - 1).astype(np.int64)[:, None]
        return indices, np.ones(indices.shape)
    shrink = min(params.scales[axis], 1.0) if params.antialias else 1.0
    if params.mode == "linear" and shrink == 1.0:
        where = np.clip(where, 0, extent - 1)
    base = np.floor(where)
    t = where - base
    offsets: tuple[int, ...]
    if shrink < 1.0:
        reach = math.ceil((1 if params.mode == "linear" else 2) / shrink)
        offsets = tuple(range(1 - reach, reach + 1))
        weights = [_kernel(params, (t - o) * shrink) for o in offsets]
        total = np.sum(weights, axis=0)
        weights = [w / total for w in weights]
    elif params.mode == "linear":
        offsets, weights = (0, 1), [1 - t, t]
    else:
        offsets = (-1, 0, 1, 2)
        weights = [_cubic(t - o, params.cubic_coefficient) for o in offsets]
    positions = base.astype(np.int64)[:, None] + np.asarray(offsets)
    matrix = np.stack(weights, axis=1)
    if (params.mode == "cubic" or shrink < 1.0) and params.exclude_outside:
        matrix = np.where((positions < 0) | (positions >= extent), 0.0, matrix)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    return np.clip(positions, 0, extent - 1), matrix


def _kernel(params: ResizeParams, distance: Array) -> Array:
    """Weight of an element at a distance, by the mode."""
    if params.mode == "cubic":
        return _cubic(distance, params.cubic_coefficient)
    return np.asarray(np.maximum(1 - np.abs(distance), 0.0))


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic kernel."""
    s = np.abs(distance)
    near = ((a + 2) * s - (a + 3)) * s * s + 1
    far = ((a * s - 5 * a) * s + 8 * a) * s - 4 * a
    return np.asarray(np.where(s <= 1, near, np.where(s < 2, far, 0.0)))


def output_extent(extent: int, scale: float) -> int:
    """ONNX: floor(extent * scale)."""
    return math.floor(extent * scale)


DEFINITION: LayerDefinition = Resize()
