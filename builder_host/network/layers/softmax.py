"""Softmax and log-softmax over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require_axis, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SoftmaxParams:
    """The axis that sums to one; `log` gives the logarithm."""

    axis: int
    log: bool = False


class Softmax:
    """x -> exp(x - max) / sum, same shape."""

    kind = "softmax"
    params_type = SoftmaxParams

    def infer(self, params: SoftmaxParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the axis."""
        require_num_inputs(inputs, 1)
        require_axis(params.axis, inputs[0].rank)
        return [inputs[0]]

    def reference(self, params: SoftmaxParams, inputs: Sequence[Array]) -> list[Array]:
        """With the maximum subtracted."""
        x = np.asarray(inputs[0], dtype=np.float64)
        shifted = x - x.max(axis=params.axis, keepdims=True)
        powers = np.exp(shifted)
        total = powers.sum(axis=params.axis, keepdims=True)
        return [shifted - np.log(total) if params.log else powers / total]


DEFINITION: LayerDefinition = Softmax()
