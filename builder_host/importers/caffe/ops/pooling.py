"""Pooling with Caffe's extents: rounded up, a last window that starts in the padding dropped."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.windows import pooling_pair
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.max_pool_indices import MaxPoolIndicesParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

TYPES = ("Pooling",)

MAX_MASK_ELEMS = 1 << 24  # of a map: positions in a mask are float32, whole up to here


def convert(layer: CaffeLayer) -> None:
    """MAX (second top: the mask), AVE, STOCHASTIC as tests run it.

    The average divides by the window clipped to the padded bottom.
    """
    param = layer.message.pooling_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    method = param.PoolMethod.Name(param.pool)
    if len(layer.top_names) > 1 and method != "MAX":
        raise LayerProblem(f"a second top (the mask of maxima) belongs to MAX, pool is {method}")
    kernel, strides, pads = _windows(param, bottom)
    if method == "STOCHASTIC" and pads != (0, 0):
        raise LayerProblem(f"pool STOCHASTIC takes no padding, pad is {pads}")
    is_floor = (
        param.RoundMode.Name(param.round_mode) == "FLOOR"
        or param.torch_pooling
        or not param.ceil_mode
    )
    outputs = tuple(
        _extent(bottom, axis, kernel[axis], strides[axis], pads[axis], is_floor)
        for axis in range(2)
    )
    params = PoolingParams(
        mode="max" if method == "MAX" else "average",
        window=kernel,
        strides=strides,
        pads_begin=pads,
        pads_end=pads,
        output_spatial=outputs,
        dilations=(1, 1),
        count_include_pad=True,
    )
    if method == "STOCHASTIC":
        _emit_expectation(layer, params)
        return
    layer.emit("pooling", params, [bottom])
    if len(layer.top_names) > 1:
        _emit_mask(layer, params)


def _emit_expectation(layer: CaffeLayer, params: PoolingParams) -> None:
    """Each value weighted by itself: sum of squares over sum, 0 where the sum is not positive."""
    x = layer.bottom
    square = layer.add("elementwise", ElementwiseParams("mul"), [x, x], "squares")
    means = [layer.add("pooling", params, [t], part) for t, part in ((square, "top"), (x, "sum"))]
    quotient = Binary("div", Input(0), Input(1))
    is_positive = Binary("gt", Input(1), Const(0.0))
    layer.emit("pointwise", PointwiseParams(Select(is_positive, quotient, Const(0.0))), means)


def _emit_mask(layer: CaffeLayer, params: PoolingParams) -> None:
    """Float32 position of each maximum within its map, row by row."""
    batch, channels, *extents = layer.bottom.shape
    cells = math.prod(extents)
    if cells > MAX_MASK_ELEMS:
        raise LayerProblem(
            f"a map of {cells:,} elements has positions that float32 does not hold; the limit of "
            f"a mask is {MAX_MASK_ELEMS:,}"
        )
    indices = MaxPoolIndicesParams(replace(params, count_include_pad=False))
    places = layer.add("max_pool_indices", indices, [layer.bottom], "indices")
    first = first_cells(layer, batch * channels, cells, (batch, channels, 1, 1))
    inside = layer.add("elementwise", ElementwiseParams("sub"), [places, first], "positions")
    layer.emit("cast", CastParams(DataType.FLOAT32), [inside], 1)


def first_cells(layer: CaffeLayer, count: int, cells: int, shape: tuple[int, ...]) -> Tensor:
    """INT64 index of the first of `cells` elements of each of `count` maps."""
    values = (np.arange(count, dtype=np.int64) * cells).reshape(shape)
    return layer.network.add_constant(values, f"{layer.name}.first")


Pair = tuple[int, int]


def _windows(param: Any, bottom: Tensor) -> tuple[Pair, Pair, Pair]:
    strides = pooling_pair(param, "stride", "stride", 1)
    pads = pooling_pair(param, "pad", "pad", 0)
    if param.global_pooling:
        if any(param.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
            raise LayerProblem("global_pooling takes no kernel size; remove one of the two")
        if pads != (0, 0) or strides != (1, 1):
            raise LayerProblem(
                f"global_pooling needs pad 0 and stride 1, has pad {pads} and stride {strides}"
            )
        return (bottom.shape[2], bottom.shape[3]), strides, pads
    kernel = pooling_pair(param, "kernel_size", "kernel", None)
    if min(kernel) < 1 or min(strides) < 1:
        raise LayerProblem(f"kernel_size {kernel} and stride {strides} must be at least 1")
    if any(p >= k for p, k in zip(pads, kernel, strict=True)):
        raise LayerProblem(f"pad {pads} must be smaller than kernel_size {kernel}")
    return kernel, strides, pads


def _extent(bottom: Tensor, axis: int, kernel: int, stride: int, pad: int, is_floor: bool) -> int:
    extent = bottom.shape[2 + axis]
    room = extent + 2 * pad - kernel
    if room < 0:
        raise LayerProblem(
            f"the window of {kernel} is larger than the bottom {shape_text(bottom)} "
            f"with {pad} of padding on each side"
        )
    windows = (room // stride if is_floor else -(-room // stride)) + 1
    if pad and (windows - 1) * stride >= extent + pad:
        windows -= 1
    if (windows - 1) * stride >= extent + pad:
        raise LayerProblem(
            f"the last window (kernel {kernel}, stride {stride}) starts behind the bottom "
            f"{shape_text(bottom)} and holds no value; use round_mode: FLOOR"
        )
    return windows
