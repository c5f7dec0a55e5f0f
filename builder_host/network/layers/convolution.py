"""Convolution: cross-correlation over any number of spatial dimensions, with groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import (
    product_type,
    require,
    require_num_inputs,
    require_per_dim,
)
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated, pad_or_crop, taps

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ConvolutionParams:
    """One value per spatial dimension; negative pads crop the input."""

    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1


class Convolution:
    """x[N,C,*S], w[K,C/G,*F], optional b[K] -> y[N,K,*O]; O = floor((S+B+A-DF)/stride)+1.

    An 8-bit x with INT8 weights gives the exact integer sums as FLOAT32.
    """

    kind = "convolution"
    params_type = ConvolutionParams

    def infer(self, params: ConvolutionParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check channels, groups, ranks and that at least one output position exists."""
        require_num_inputs(inputs, 2, 3)
        dtype = product_type(inputs)
        x, w = inputs[0], inputs[1]
        spatial = x.rank - 2
        require(spatial >= 1, f"input needs batch, channels and space, got {x}")
        require(w.rank == x.rank, f"weights {w} must have the rank of the input {x}")
        check_window_params(params, spatial)
        groups, (k, c_per_group) = params.groups, w.shape[:2]
        require(groups >= 1, f"groups is {groups}, must be at least 1")
        require(
            x.shape[1] == c_per_group * groups,
            f"input has {x.shape[1]} channels, weights {w} with {groups} groups need "
            f"{c_per_group * groups}",
        )
        require(k % groups == 0, f"{k} output maps do not divide into {groups} groups")
        check_bias(inputs, k)
        out = []
        for i in range(spatial):
            covered = dilated(w.shape[2 + i], params.dilations[i])
            room = x.shape[2 + i] + params.pads_begin[i] + params.pads_end[i]
            require(
                room >= covered,
                f"window of {covered} does not fit the padded extent {room} of dimension {2 + i}",
            )
            out.append((room - covered) // params.strides[i] + 1)
        return [TensorType((x.shape[0], k, *out), dtype)]

    def reference(self, params: ConvolutionParams, inputs: Sequence[Array]) -> list[Array]:
        """Sum over taps of one matrix product per group."""
        x, w = (np.asarray(v, dtype=np.float64) for v in inputs[:2])
        n, c = x.shape[:2]
        k, groups, spatial = w.shape[0], params.groups, x.ndim - 2
        x = pad_or_crop(x, (0, 0, *params.pads_begin), (0, 0, *params.pads_end))
        out = tuple(
            (x.shape[2 + i] - dilated(w.shape[2 + i], params.dilations[i])) // params.strides[i] + 1
            for i in range(spatial)
        )
        y = np.zeros((n, groups, k // groups, int(np.prod(out))))
        for tap, where in taps(w.shape[2:], params.dilations, params.strides, out):
            columns = x[where].reshape(n, groups, c // groups, -1)
            matrix = w[tap].reshape(groups, k // groups, c // groups)
            if c == groups:
                y += matrix * columns
            else:
                y += np.matmul(matrix, columns)
        result = y.reshape(n, k, *out)
        if len(inputs) > 2:
            result += np.asarray(inputs[2], dtype=np.float64).reshape(1, k, *(1,) * spatial)
        return [result]


def check_window_params(params: Any, spatial: int) -> None:
    """One positive stride and dilation, and one pad, per spatial dimension."""
    for name in ("strides", "pads_begin", "pads_end", "dilations"):
        require_per_dim(getattr(params, name), spatial, name)
    for name in ("strides", "dilations"):
        values = getattr(params, name)
        require(all(v >= 1 for v in values), f"{name} {values} must be at least 1")


def check_bias(inputs: Sequence[TensorType], num_maps: int) -> None:
    """An optional third input is one value per output map."""
    if len(inputs) > 2:
        bias = inputs[2].shape
        require(bias == (num_maps,), f"bias has shape {bias}, {num_maps} maps need ({num_maps},)")


DEFINITION: LayerDefinition = Convolution()
