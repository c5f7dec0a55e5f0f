"""Gather: slices of the data picked by indices along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_axis, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GatherParams:
    """The axis of the data that the indices count along."""

    axis: int


class Gather:
    """data, indices (integer) -> data[:axis] + indices + data[axis+1:].

    Negative indices count from the end; an index out of range gives zeros.
    """

    kind = "gather"
    params_type = GatherParams

    def infer(self, params: GatherParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the axis and the type of the indices."""
        require_num_inputs(inputs, 2)
        data, indices = inputs
        require_axis(params.axis, data.rank)
        require(
            not indices.dtype.is_float and indices.dtype is not DataType.BOOL,
            f"indices must be integers, got {indices}",
        )
        shape = (*data.shape[: params.axis], *indices.shape, *data.shape[params.axis + 1 :])
        return [TensorType(shape, data.dtype)]

    def reference(self, params: GatherParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.take, zero where out of range."""
        data, indices = (np.asarray(v) for v in inputs)
        extent = data.shape[params.axis]
        where = np.where(indices < 0, indices + extent, indices)
        legal = (where >= 0) & (where < extent)
        y = np.take(data, np.where(legal, where, 0), axis=params.axis)
        mask = legal.reshape((*indices.shape, *(1,) * (data.ndim - params.axis - 1)))
        return [np.where(mask, y, np.zeros((), dtype=data.dtype))]


DEFINITION: LayerDefinition = Gather()
