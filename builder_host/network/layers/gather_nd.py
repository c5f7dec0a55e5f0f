"""Gather by coordinates: each index tuple picks a slice of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_index, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GatherNdParams:
    """Leading dimensions that data and indices share."""

    batch_dims: int = 0


class GatherNd:
    """data, indices[B.., I.., K] -> y[B.., I.., *data.shape[batch_dims + K:]].

    Negative indices count from the end; a tuple with an index out of range gives zeros.
    """

    kind = "gather_nd"
    params_type = GatherNdParams

    def infer(self, params: GatherNdParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the batch dimensions and the length of the tuples."""
        require_num_inputs(inputs, 2)
        data, indices = inputs
        require_index(indices)
        batch = params.batch_dims
        require(
            indices.rank >= 1
            and 0 <= batch < indices.rank
            and batch + indices.shape[-1] <= data.rank
            and data.shape[:batch] == indices.shape[:batch],
            f"indices {indices} with batch_dims {batch} do not fit data {data}",
        )
        rest = data.shape[batch + indices.shape[-1] :]
        return [TensorType((*indices.shape[:-1], *rest), data.dtype)]

    def reference(self, params: GatherNdParams, inputs: Sequence[Array]) -> list[Array]:
        """Numpy's indexing by arrays, zero where a tuple is out of range."""
        data, indices = (np.asarray(v) for v in inputs)
        batch = params.batch_dims
        depth = indices.shape[-1]
        extents = np.asarray(data.shape[batch : batch + depth], np.int64)
        where = np.where(indices < 0, indices + extents, indices)
        legal = ((where >= 0) & (where < extents)).all(axis=-1)
        rest = data.shape[batch + depth :]
        if 0 in extents:
            return [np.zeros((*indices.shape[:-1], *rest), data.dtype)]
        grid = list(np.indices(indices.shape[:-1])[:batch])
        grid += [np.where(legal, where[..., k], 0) for k in range(depth)]
        picked = data[tuple(grid)] if grid else np.broadcast_to(data, (*legal.shape, *data.shape))
        mask = legal.reshape(*legal.shape, *(1,) * len(rest))
        return [np.where(mask, picked, np.zeros((), dtype=data.dtype))]


DEFINITION: LayerDefinition = GatherNd()
