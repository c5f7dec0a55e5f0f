"""Pooling: maximum or average over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers.convolution import check_window_params
from builder_host.network.rules import (
    EIGHT_BITS,
    require,
    require_num_inputs,
    require_per_dim,
)
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated, pad_or_crop, taps
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PoolingParams:
    """One value per spatial dimension.

    Attributes:
        mode: maximum (padding counts as -inf) or average (padding counts as 0).
        window, strides, dilations: at least 1.
        pads_begin, pads_end: at least 0.
        output_spatial: extents of the output; `pooled_extent` computes the usual rules.
        count_include_pad: average divides by the window clipped to [-pads_begin, S + pads_end),
            else by the cells inside the tensor.
    """

    mode: Literal["max", "average"]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    output_spatial: tuple[int, ...]
    dilations: tuple[int, ...]
    count_include_pad: bool


def pooled_extent(
    extent: int,
    window: int,
    stride: int,
    pad_begin: int,
    pad_end: int,
    dilation: int = 1,
    rounding: Literal["floor", "ceil"] = "floor",
) -> int:
    """Output extent of one dimension.

    With `ceil` a last window that starts at or after extent + pad_begin is dropped (Caffe, ONNX).
    The result is below 1 when the window does not fit.
    """
    room = extent + pad_begin + pad_end - dilated(window, dilation)
    if rounding == "floor":
        return room // stride + 1
    out = -(-room // stride) + 1
    if (out - 1) * stride >= extent + pad_begin:
        out -= 1
    return out


class Pooling:
    """x[N,C,*S] -> y[N,C,*output_spatial].

    The average of 8-bit values is FLOAT32: their exact sum, divided once.
    """

    kind = "pooling"
    params_type = PoolingParams

    def infer(self, params: PoolingParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check ranks and that every window touches the tensor."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        spatial = x.rank - 2
        require(spatial >= 1, f"input needs batch, channels and space, got {x}")
        require(
            params.mode in ("max", "average"), f"mode '{params.mode}' is neither max nor average"
        )
        check_window_params(params, spatial)
        require_per_dim(params.window, spatial, "window")
        require_per_dim(params.output_spatial, spatial, "output_spatial")
        for i in range(spatial):
            begin, end, extent = params.pads_begin[i], params.pads_end[i], x.shape[2 + i]
            out, stride, window = params.output_spatial[i], params.strides[i], params.window[i]
            require(begin >= 0 and end >= 0, f"pads {begin} and {end} must not be negative")
            require(
                window >= 1 and out >= 1,
                f"window {window} over extent {extent} with pads {begin}+{end} gives {out} "
                f"outputs in dimension {2 + i}",
            )
            require(
                dilated(window, params.dilations[i]) > begin,
                f"pad {begin} holds the first window of {window} entirely (dimension {2 + i})",
            )
            require(
                (out - 1) * stride - begin < extent,
                f"output {out - 1} of dimension {2 + i} starts at {(out - 1) * stride - begin}, "
                f"outside the extent {extent}",
            )
        is_mean_of_8_bits = params.mode == "average" and x.dtype in EIGHT_BITS
        dtype = DataType.FLOAT32 if is_mean_of_8_bits else x.dtype
        return [TensorType((*x.shape[:2], *params.output_spatial), dtype)]

    def reference(self, params: PoolingParams, inputs: Sequence[Array]) -> list[Array]:
        """Fold over the taps of the window."""
        x = np.asarray(inputs[0], dtype=np.float64)
        is_max = params.mode == "max"
        needed = [
            (o - 1) * s + dilated(f, d)
            for o, s, f, d in zip(
                params.output_spatial, params.strides, params.window, params.dilations, strict=True
            )
        ]
        ends = [n - b - e for n, b, e in zip(needed, params.pads_begin, x.shape[2:], strict=True)]
        fill = -np.inf if is_max else 0.0
        padded = pad_or_crop(x, (0, 0, *params.pads_begin), (0, 0, *ends), fill)
        y = np.full((*x.shape[:2], *params.output_spatial), fill)
        for _, where in taps(
            params.window, params.dilations, params.strides, params.output_spatial
        ):
            cells = padded[where]
            y = np.maximum(y, cells) if is_max else y + cells
        if not is_max:
            y = y / divisors(params, x.shape[2:])
        return [y]


def divisors(params: PoolingParams, extents: Sequence[int]) -> Array:
    """Number of counted cells per output position, of shape output_spatial (float64)."""
    total = np.ones(())
    for i, extent in enumerate(extents):
        starts = np.arange(params.output_spatial[i]) * params.strides[i] - params.pads_begin[i]
        cells = starts[:, None] + np.arange(params.window[i]) * params.dilations[i]
        low, high = 0, extent
        if params.count_include_pad:
            low, high = -params.pads_begin[i], extent + params.pads_end[i]
        counts = ((cells >= low) & (cells < high)).sum(axis=1)
        total = np.multiply.outer(total, counts.astype(np.float64))
    return np.asarray(total)


DEFINITION: LayerDefinition = Pooling()
