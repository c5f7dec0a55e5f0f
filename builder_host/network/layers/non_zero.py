"""Non-zero: coordinates of the elements that are not zero, in a tensor of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class NonZeroParams:
    """Columns of the result: as many coordinates as it has room for."""

    max_count: int


class NonZero:
    """x -> INT64 [rank, max_count]: coordinates in row-major order, -1 past the last one.

    Elements beyond `max_count` are left out. A scalar counts as one element of rank 1.
    """

    kind = "non_zero"
    params_type = NonZeroParams

    def infer(self, params: NonZeroParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the bound."""
        require_num_inputs(inputs, 1)
        require(params.max_count >= 0, f"max_count is {params.max_count}; it must not be negative")
        return [TensorType((max(inputs[0].rank, 1), params.max_count), DataType.INT64)]

    def reference(self, params: NonZeroParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.nonzero, cut or filled up."""
        found = np.stack(np.nonzero(np.atleast_1d(np.asarray(inputs[0]))))[:, : params.max_count]
        y = np.full((found.shape[0], params.max_count), -1, np.int64)
        y[:, : found.shape[1]] = found
        return [y]


DEFINITION: LayerDefinition = NonZero()
