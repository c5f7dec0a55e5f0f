"""Deformable convolution: a 2-D convolution that reads each tap at a place of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs, require_same_dtype
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DeformableConvolutionParams:
    """As for a convolution of two spatial dimensions.

    Attributes:
        strides, pads_begin, pads_end, dilations: rows, columns.
        groups: of channels and outputs.
        offset_groups: channels that share their offsets.
        has_mask: every tap is scaled by an input as well.
        has_bias: the last input is a bias per output channel.
    """

    strides: tuple[int, int]
    pads_begin: tuple[int, int]
    pads_end: tuple[int, int]
    dilations: tuple[int, int]
    groups: int = 1
    offset_groups: int = 1
    has_mask: bool = False
    has_bias: bool = False


class DeformableConvolution:
    """x[N,C,H,W], w[K,C/G,R,S], offset[N,2*O*R*S,*out], (mask[N,O*R*S,*out]), (bias[K]) -> y.

    Offsets are (row, column) per offset group and tap; positions between elements are
    interpolated linearly, elements outside are zero.
    """

    kind = "deformable_convolution"
    params_type = DeformableConvolutionParams

    def infer(
        self, params: DeformableConvolutionParams, inputs: Sequence[TensorType]
    ) -> list[TensorType]:
        """Check every shape against the window."""
        require_num_inputs(inputs, 3 + params.has_mask + params.has_bias)
        require_same_dtype(inputs)
        x, w, offset = inputs[:3]
        require(x.rank == w.rank == offset.rank == 4, f"{x}, {w} and {offset} must have rank 4")
        groups, shared = params.groups, params.offset_groups
        require(
            groups >= 1
            and shared >= 1
            and x.shape[1] % max(shared, 1) == 0
            and w.shape[1] * groups == x.shape[1]
            and w.shape[0] % max(groups, 1) == 0,
            f"{groups} groups and {shared} offset groups do not fit {x} and weights {w}",
        )
        require(
            min(*params.strides, *params.dilations) >= 1,
            f"strides {params.strides} and dilations {params.dilations} must be positive",
        )
        out = tuple(
            (x.shape[2 + d] + params.pads_begin[d] + params.pads_end[d]
             - dilated(w.shape[2 + d], params.dilations[d])) // params.strides[d] + 1
            for d in (0, 1)
        )  # fmt: skip
        taps = shared * w.shape[2] * w.shape[3]
        require(min(out) >= 1, f"the window of {w} does not fit {x}")
        require(
            offset.shape == (x.shape[0], 2 * taps, *out),
            f"offsets {offset} must have shape {(x.shape[0], 2 * taps, *out)}",
        )
        if params.has_mask:
            require(
                inputs[3].shape == (x.shape[0], taps, *out),
                f"mask {inputs[3]} must have shape {(x.shape[0], taps, *out)}",
            )
        if params.has_bias:
            require(inputs[-1].shape == w.shape[:1], f"bias {inputs[-1]} does not fit {w}")
        return [TensorType((x.shape[0], w.shape[0], *out), x.dtype)]

    def reference(
        self, params: DeformableConvolutionParams, inputs: Sequence[Array]
    ) -> list[Array]:
        """Tap after tap; each gathers its four neighbours."""
        x, w, offset = (np.asarray(v, dtype=np.float64) for v in inputs[:3])
        batch, channels = x.shape[:2]
        num_taps = w.shape[2] * w.shape[3]
        out = offset.shape[2:]
        grid = np.indices(out).astype(np.float64)
        y = np.zeros((batch, w.shape[0], *out))
        per_group, per_offset = channels // params.groups, channels // params.offset_groups
        outputs_per_group = w.shape[0] // params.groups
        for tap in range(num_taps):
            row, column = divmod(tap, w.shape[3])
            for channel in range(channels):
                shared = channel // per_offset
                first = 2 * (shared * num_taps + tap)
                where = [
                    grid[d] * params.strides[d] - params.pads_begin[d]
                    + (row, column)[d] * params.dilations[d] + offset[:, first + d]
                    for d in (0, 1)
                ]  # fmt: skip
                value = interpolated(x[:, channel], where[0], where[1])
                if params.has_mask:
                    value = value * np.asarray(inputs[3])[:, shared * num_taps + tap]
                group, inner = divmod(channel, per_group)
                kernel = w[group * outputs_per_group :, inner, row, column][:outputs_per_group]
                part = slice(group * outputs_per_group, (group + 1) * outputs_per_group)
                y[:, part] += kernel[None, :, None, None] * value[:, None]
        if params.has_bias:
            y += np.asarray(inputs[-1], dtype=np.float64)[None, :, None, None]
        return [y]


def interpolated(image: Array, rows: Array, columns: Array) -> Array:
    """image[N,H,W] at positions [N,*out], linearly, zero outside."""
    total: Array = np.zeros(rows.shape)
    batch = np.arange(image.shape[0])[:, None, None]
    for row, row_weight in ((np.floor(rows), None), (np.floor(rows) + 1, 1)):
        a = rows - np.floor(rows) if row_weight else 1 - (rows - np.floor(rows))
        for column, column_weight in ((np.floor(columns), None), (np.floor(columns) + 1, 1)):
            b = columns - np.floor(columns)
            b = b if column_weight else 1 - b
            legal = (row >= 0) & (row < image.shape[1])
            legal &= (column >= 0) & (column < image.shape[2])
            picked = image[
                batch,
                np.where(legal, row, 0).astype(np.int64),
                np.where(legal, column, 0).astype(np.int64),
            ]
            total = total + np.where(legal, a * b * picked, 0.0)
    return total


DEFINITION: LayerDefinition = DeformableConvolution()
