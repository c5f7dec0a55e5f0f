"""Deconvolution: transposed convolution; pads crop the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers.convolution import check_bias, check_window_params
from builder_host.network.rules import (
    require,
    require_num_inputs,
    require_per_dim,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated, pad_or_crop, taps

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DeconvolutionParams:
    """One value per spatial dimension; output_padding extends the end of the output."""

    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1


class Deconvolution:
    """x[N,C,*S], w[C,K/G,*F], optional b[K] -> y[N,K,(S-1)*stride+D(F-1)+1-(B+A)+extra]."""

    kind = "deconvolution"
    params_type = DeconvolutionParams

    def infer(self, params: DeconvolutionParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check channels, groups, ranks and that the pads leave an output."""
        require_num_inputs(inputs, 2, 3)
        require_same_dtype(inputs)
        x, w = inputs[0], inputs[1]
        spatial = x.rank - 2
        require(spatial >= 1, f"input needs batch, channels and space, got {x}")
        require(w.rank == x.rank, f"weights {w} must have the rank of the input {x}")
        check_window_params(params, spatial)
        require_per_dim(params.output_padding, spatial, "output_padding")
        groups = params.groups
        require(groups >= 1, f"groups is {groups}, must be at least 1")
        require(
            x.shape[1] == w.shape[0],
            f"input has {x.shape[1]} channels, weights {w} need {w.shape[0]}",
        )
        require(
            x.shape[1] % groups == 0, f"{x.shape[1]} channels do not divide into {groups} groups"
        )
        k = w.shape[1] * groups
        check_bias(inputs, k)
        out = []
        for i in range(spatial):
            full = (x.shape[2 + i] - 1) * params.strides[i]
            full += dilated(w.shape[2 + i], params.dilations[i])
            extent = full - params.pads_begin[i] - params.pads_end[i] + params.output_padding[i]
            require(
                extent >= 1,
                f"pads {params.pads_begin[i]}+{params.pads_end[i]} leave extent {extent} of "
                f"{full} in dimension {2 + i}",
            )
            out.append(extent)
        return [TensorType((x.shape[0], k, *out), x.dtype)]

    def reference(self, params: DeconvolutionParams, inputs: Sequence[Array]) -> list[Array]:
        """Scatter one matrix product per tap, then crop."""
        x, w = (np.asarray(v, dtype=np.float64) for v in inputs[:2])
        n, c = x.shape[:2]
        groups, k_per_group, spatial = params.groups, w.shape[1], x.ndim - 2
        k, extents = k_per_group * groups, x.shape[2:]
        full = tuple(
            (extents[i] - 1) * params.strides[i] + dilated(w.shape[2 + i], params.dilations[i])
            for i in range(spatial)
        )
        y = np.zeros((n, k, *full))
        columns = x.reshape(n, groups, c // groups, -1)
        for tap, where in taps(w.shape[2:], params.dilations, params.strides, extents):
            matrix = w[tap].reshape(groups, c // groups, k_per_group)
            part = np.matmul(matrix.transpose(0, 2, 1), columns)
            y[where] += part.reshape(n, k, *extents)
        y = pad_or_crop(
            y,
            (0, 0, *(-b for b in params.pads_begin)),
            (
                0,
                0,
                *(e - a for a, e in zip(params.pads_end, params.output_padding, strict=True)),
            ),
        )
        if len(inputs) > 2:
            y += np.asarray(inputs[2], dtype=np.float64).reshape(1, k, *(1,) * spatial)
        return [y]


DEFINITION: LayerDefinition = Deconvolution()
