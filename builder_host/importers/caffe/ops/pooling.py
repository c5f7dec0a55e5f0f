"""Pooling with Caffe's extents: rounded up, a last window that starts in the padding dropped."""

from __future__ import annotations

from typing import Any

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.windows import pooling_pair
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Tensor

TYPES = ("Pooling",)


def convert(layer: CaffeLayer) -> None:
    """MAX and AVE; the average divides by the window clipped to the padded bottom."""
    param = layer.message.pooling_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    method = param.PoolMethod.Name(param.pool)
    if method == "STOCHASTIC":
        raise LayerProblem("pool STOCHASTIC cannot be imported; MAX and AVE can")
    if len(layer.top_names) > 1:
        raise LayerProblem("a second top (the mask of maxima) cannot be imported; remove it")
    kernel, strides, pads = _windows(param, bottom)
    is_floor = (
        param.RoundMode.Name(param.round_mode) == "FLOOR"
        or param.torch_pooling
        or not param.ceil_mode
    )
    outputs = tuple(
        _extent(bottom, axis, kernel[axis], strides[axis], pads[axis], is_floor)
        for axis in range(2)
    )
    layer.emit(
        "pooling",
        PoolingParams(
            mode="max" if method == "MAX" else "average",
            window=kernel,
            strides=strides,
            pads_begin=pads,
            pads_end=pads,
            output_spatial=outputs,
            dilations=(1, 1),
            count_include_pad=True,
        ),
        [bottom],
    )


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
