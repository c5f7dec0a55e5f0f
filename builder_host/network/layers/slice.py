"""Slice: every stride-th element from a start, per dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs, require_per_dim
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SliceParams:
    """One value per dimension; strides may be zero or negative."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


class Slice:
    """x -> y[i] = x[starts + i * strides]."""

    kind = "slice"
    params_type = SliceParams

    def infer(self, params: SliceParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that first and last index of each dimension lie inside."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        for name in ("starts", "sizes", "strides"):
            require_per_dim(getattr(params, name), x.rank, name)
        for i, extent in enumerate(x.shape):
            start, size, stride = params.starts[i], params.sizes[i], params.strides[i]
            require(size >= 0, f"size {size} of dimension {i} is negative")
            last = start + (size - 1) * stride
            require(
                size == 0 or (0 <= start < extent and 0 <= last < extent),
                f"dimension {i} of extent {extent} is read from {start} to {last}",
            )
        return [TensorType(params.sizes, x.dtype)]

    def reference(self, params: SliceParams, inputs: Sequence[Array]) -> list[Array]:
        """Fancy indexing."""
        x = np.asarray(inputs[0])
        indices = [
            start + np.arange(size) * stride
            for start, size, stride in zip(params.starts, params.sizes, params.strides, strict=True)
        ]
        return [x[np.ix_(*indices)] if indices else x.copy()]


DEFINITION: LayerDefinition = Slice()
