"""Gather elements: each output element is picked along one axis by an index of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_axis, require_index, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GatherElementsParams:
    """The axis of the data that the indices count along."""

    axis: int


class GatherElements:
    """data, indices (integer, same rank) -> y[..i..] = data[..indices[..i..]..].

    Negative indices count from the end; an index out of range gives zero.
    """

    kind = "gather_elements"
    params_type = GatherElementsParams

    def infer(self, params: GatherElementsParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check ranks, extents and the type of the indices."""
        require_num_inputs(inputs, 2)
        data, indices = inputs
        require_axis(params.axis, data.rank)
        require_index(indices)
        fits = data.rank == indices.rank and all(
            i <= d or dim == params.axis
            for dim, (i, d) in enumerate(zip(indices.shape, data.shape, strict=True))
        )
        require(fits, f"indices {indices} do not fit data {data} along axis {params.axis}")
        return [TensorType(indices.shape, data.dtype)]

    def reference(self, params: GatherElementsParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.take_along_axis, zero where out of range."""
        data, indices = (np.asarray(v) for v in inputs)
        extent = data.shape[params.axis]
        where = np.where(indices < 0, indices + extent, indices)
        legal = (where >= 0) & (where < extent)
        if not extent:
            return [np.zeros(indices.shape, data.dtype)]
        grid: list[Array] = list(np.indices(indices.shape))
        grid[params.axis] = np.where(legal, where, 0)
        return [np.where(legal, data[tuple(grid)], np.zeros((), dtype=data.dtype))]


DEFINITION: LayerDefinition = GatherElements()
