"""Fully connected: y = x·wᵀ + b on the input flattened after the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers.convolution import check_bias
from builder_host.network.rules import product_type, require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class FullyConnectedParams:
    """No parameters."""


class FullyConnected:
    """x[N,...] with V elements per image, w[K,V], optional b[K] -> [N,K]; 8 bits as convolution."""

    kind = "fully_connected"
    params_type = FullyConnectedParams

    def infer(self, params: FullyConnectedParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the weights match the flattened input."""
        del params
        require_num_inputs(inputs, 2, 3)
        dtype = product_type(inputs)
        x, w = inputs[0], inputs[1]
        require(x.rank >= 1, "input needs a batch dimension, got a scalar")
        require(w.rank == 2, f"weights must be [K,V], got {w}")
        volume = math.prod(x.shape[1:])
        require(
            w.shape[1] == volume,
            f"input {x} has {volume} elements per image, weights {w} take {w.shape[1]}",
        )
        check_bias(inputs, w.shape[0])
        return [TensorType((x.shape[0], w.shape[0]), dtype)]

    def reference(self, params: FullyConnectedParams, inputs: Sequence[Array]) -> list[Array]:
        """One matrix product."""
        del params
        x, w = (np.asarray(v, dtype=np.float64) for v in inputs[:2])
        y = x.reshape(x.shape[0], w.shape[1]) @ w.T
        if len(inputs) > 2:
            y = y + np.asarray(inputs[2], dtype=np.float64)
        return [y]


DEFINITION: LayerDefinition = FullyConnected()
