"""Concatenation of tensors along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_axis, require_same_dtype
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ConcatenationParams:
    """The axis whose extents add up."""

    axis: int


class Concatenation:
    """One or more inputs that agree in all other dimensions -> y."""

    kind = "concatenation"
    params_type = ConcatenationParams

    def infer(self, params: ConcatenationParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that all dimensions but the axis agree."""
        require(len(inputs) >= 1, "takes at least one input")
        require_same_dtype(inputs)
        first, axis = inputs[0], params.axis
        require_axis(axis, first.rank)
        for number, other in enumerate(inputs):
            agrees = other.rank == first.rank and all(
                i == axis or a == b
                for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
            )
            require(agrees, f"input {number} is {other}, input 0 is {first}; axis is {axis}")
        shape = list(first.shape)
        shape[axis] = sum(t.shape[axis] for t in inputs)
        return [TensorType(tuple(shape), first.dtype)]

    def reference(self, params: ConcatenationParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.concatenate."""
        return [np.concatenate(list(inputs), axis=params.axis)]


DEFINITION: LayerDefinition = Concatenation()
