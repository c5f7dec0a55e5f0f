"""Normalize of SSD: scale to unit length over channels, or over a whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import (
    require,
    require_broadcastable_to,
    require_num_inputs,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class NormalizeParams:
    """Whether the length is that of the whole image, and what is added to its square."""

    across_spatial: bool
    epsilon: float


class Normalize:
    """x[N,C,H,W], scale (broadcastable to x) -> x / sqrt(sum x^2 + epsilon) * scale."""

    kind = "normalize"
    params_type = NormalizeParams

    def infer(self, params: NormalizeParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the rank and the scale."""
        del params
        require_num_inputs(inputs, 2)
        require_same_dtype(inputs)
        require(inputs[0].rank == 4, f"input must be [N,C,H,W], got {inputs[0]}")
        require_broadcastable_to(inputs[1].shape, inputs[0].shape, "scale")
        return [inputs[0]]

    def reference(self, params: NormalizeParams, inputs: Sequence[Array]) -> list[Array]:
        """In float64."""
        x, scale = (np.asarray(v, dtype=np.float64) for v in inputs)
        axes = (1, 2, 3) if params.across_spatial else (1,)
        length = np.sqrt(np.sum(x * x, axis=axes, keepdims=True) + params.epsilon)
        return [x / length * scale]


DEFINITION: LayerDefinition = Normalize()
