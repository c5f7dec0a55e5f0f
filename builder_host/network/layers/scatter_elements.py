"""Scatter elements: a copy of the data with single elements replaced or combined."""

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

REDUCTIONS: dict[str, Any] = {
    "none": lambda _old, new: new,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True, slots=True)
class ScatterElementsParams:
    """The axis that the indices count along, and one of REDUCTIONS (`none` replaces)."""

    axis: int
    reduction: str = "none"


class ScatterElements:
    """data, indices, updates (of the indices' shape) -> y of data's shape.

    y starts as data; in row-major order of the indices, y[..indices[..i..]..] becomes the update or
    its reduction with the old value. Negative indices count from the end; one out of range changes
    nothing.
    """

    kind = "scatter_elements"
    params_type = ScatterElementsParams

    def infer(
        self, params: ScatterElementsParams, inputs: Sequence[TensorType]
    ) -> list[TensorType]:
        """Check ranks, extents and types."""
        require_num_inputs(inputs, 3)
        data, indices, updates = inputs
        require_axis(params.axis, data.rank)
        require_index(indices)
        require_same_dtype((data, updates))
        require_reduction(params.reduction)
        fits = data.rank == indices.rank and all(
            i <= d or dim == params.axis
            for dim, (i, d) in enumerate(zip(indices.shape, data.shape, strict=True))
        )
        require(
            fits and updates.shape == indices.shape,
            f"indices {indices} and updates {updates} do not fit data {data} along axis "
            f"{params.axis}",
        )
        return [data]

    def reference(self, params: ScatterElementsParams, inputs: Sequence[Array]) -> list[Array]:
        """One update after the other."""
        data, indices, updates = (np.asarray(v) for v in inputs)
        y = data.copy()
        combine = REDUCTIONS[params.reduction]
        extent = data.shape[params.axis]
        for place in np.ndindex(indices.shape):
            where = int(indices[place])
            where += extent if where < 0 else 0
            if 0 <= where < extent:
                target = (*place[: params.axis], where, *place[params.axis + 1 :])
                y[target] = combine(y[target], updates[place])
        return [y]


def require_reduction(reduction: str) -> None:
    """One of REDUCTIONS."""
    require(
        reduction in REDUCTIONS,
        f"reduction '{reduction}' is not one of {', '.join(REDUCTIONS)}",
    )


DEFINITION: LayerDefinition = ScatterElements()
