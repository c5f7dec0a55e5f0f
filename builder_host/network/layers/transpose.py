"""Transpose: reorder the dimensions."""

from __future__ import annotations

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
class TransposeParams:
    """out_dim[i] = in_dim[permutation[i]]."""

    permutation: tuple[int, ...]


class Transpose:
    """x -> x with its dimensions reordered."""

    kind = "transpose"
    params_type = TransposeParams

    def infer(self, params: TransposeParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the permutation holds each dimension once."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(
            sorted(params.permutation) == list(range(x.rank)),
            f"permutation {params.permutation} is none of 0..{x.rank - 1}",
        )
        return [TensorType(tuple(x.shape[i] for i in params.permutation), x.dtype)]

    def reference(self, params: TransposeParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.transpose."""
        return [np.transpose(inputs[0], params.permutation).copy()]


DEFINITION: LayerDefinition = Transpose()
