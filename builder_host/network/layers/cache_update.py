"""Cache update: rows of a cache replaced from a position of its own in each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import (
    require,
    require_axis,
    require_index,
    require_num_inputs,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CacheUpdateParams:
    """The axis of positions (not the batch), and whether positions wrap at its end."""

    axis: int
    is_circular: bool = False


class CacheUpdate:
    """past[B, ..], update[B, ..], starts[B] -> past with update's rows from position starts[b].

    Rows that would lie outside the cache are dropped, unless positions wrap.
    """

    kind = "cache_update"
    params_type = CacheUpdateParams

    def infer(self, params: CacheUpdateParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check axis, shapes and types."""
        require_num_inputs(inputs, 3)
        past, update, starts = inputs
        require_axis(params.axis, past.rank)
        require_index(starts)
        require_same_dtype((past, update))
        expected = list(past.shape)
        if update.rank == past.rank:
            expected[params.axis] = update.shape[params.axis]
        require(
            params.axis > 0
            and update.shape == tuple(expected)
            and update.shape[params.axis] <= past.shape[params.axis]
            and starts.shape == past.shape[:1],
            f"update {update} from {starts} does not fit {past} along axis {params.axis}",
        )
        return [past]

    def reference(self, params: CacheUpdateParams, inputs: Sequence[Array]) -> list[Array]:
        """Row after row."""
        past, update, starts = (np.asarray(v) for v in inputs)
        y = np.moveaxis(past, params.axis, 1).copy()
        rows = np.moveaxis(update, params.axis, 1)
        for batch, start in enumerate(starts):
            for number in range(rows.shape[1]):
                place = int(start) + number
                place = place % y.shape[1] if params.is_circular else place
                if 0 <= place < y.shape[1]:
                    y[batch, place] = rows[batch, number]
        return [np.ascontiguousarray(np.moveaxis(y, 1, params.axis))]


DEFINITION: LayerDefinition = CacheUpdate()
