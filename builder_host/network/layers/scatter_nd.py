"""Scatter by coordinates: a copy of the data with slices replaced or combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers.scatter_elements import REDUCTIONS, require_reduction
from builder_host.network.rules import (
    require,
    require_index,
    require_num_inputs,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ScatterNdParams:
    """One of scatter_elements.REDUCTIONS (`none` replaces)."""

    reduction: str = "none"


class ScatterNd:
    """data, indices[I.., K], updates[I.., *data.shape[K:]] -> y of data's shape.

    y starts as data; tuple after tuple, y[indices[i]] becomes updates[i] or its reduction with the
    old slice. Negative indices count from the end; a tuple out of range changes nothing.
    """

    kind = "scatter_nd"
    params_type = ScatterNdParams

    def infer(self, params: ScatterNdParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the tuples' length, and the shape of the updates."""
        require_num_inputs(inputs, 3)
        data, indices, updates = inputs
        require_index(indices)
        require_same_dtype((data, updates))
        require_reduction(params.reduction)
        depth = indices.shape[-1] if indices.rank else 0
        require(
            1 <= depth <= data.rank and updates.shape == (*indices.shape[:-1], *data.shape[depth:]),
            f"indices {indices} and updates {updates} do not fit data {data}",
        )
        return [data]

    def reference(self, params: ScatterNdParams, inputs: Sequence[Array]) -> list[Array]:
        """One slice after the other."""
        data, indices, updates = (np.asarray(v) for v in inputs)
        y = data.copy()
        combine = REDUCTIONS[params.reduction]
        extents = np.asarray(data.shape[: indices.shape[-1]], np.int64)
        for place in np.ndindex(indices.shape[:-1]):
            where = np.where(indices[place] < 0, indices[place] + extents, indices[place])
            if ((where >= 0) & (where < extents)).all():
                target = tuple(int(i) for i in where)
                y[target] = combine(y[target], updates[place])
        return [y]


DEFINITION: LayerDefinition = ScatterNd()
