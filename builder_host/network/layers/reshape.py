"""Reshape: the same elements in row-major order under another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReshapeParams:
    """The new shape, fully known."""

    shape: tuple[int, ...]


class Reshape:
    """x -> x under `shape`."""

    kind = "reshape"
    params_type = ReshapeParams

    def infer(self, params: ReshapeParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the number of elements."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(all(d >= 0 for d in params.shape), f"shape {params.shape} is not fully known")
        wanted = math.prod(params.shape)
        require(
            wanted == x.num_elems,
            f"{x} has {x.num_elems} elements, shape {params.shape} takes {wanted}",
        )
        return [TensorType(params.shape, x.dtype)]

    def reference(self, params: ReshapeParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.reshape."""
        return [np.asarray(inputs[0]).reshape(params.shape).copy()]


DEFINITION: LayerDefinition = Reshape()
