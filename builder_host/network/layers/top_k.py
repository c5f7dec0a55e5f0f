"""Top k: the k largest or smallest elements along one axis and where they were."""

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
class TopKParams:
    """Equal elements keep their order; `sorted` False allows, but does not ask for, disorder."""

    k: int
    axis: int
    largest: bool = True
    sorted: bool = True


class TopK:
    """x -> values, INT64 indices; the axis gets extent k."""

    kind = "top_k"
    params_type = TopKParams

    def infer(self, params: TopKParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the axis and k."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require_axis(params.axis, x.rank)
        extent = x.shape[params.axis]
        require(0 <= params.k <= extent, f"k is {params.k}, axis {params.axis} has {extent}")
        shape = list(x.shape)
        shape[params.axis] = params.k
        return [TensorType(tuple(shape), x.dtype), TensorType(tuple(shape), DataType.INT64)]

    def reference(self, params: TopKParams, inputs: Sequence[Array]) -> list[Array]:
        """A stable sort."""
        x = np.asarray(inputs[0])
        x = x.astype(np.int64) if x.dtype.kind in "iub" else x.astype(np.float64)
        order = np.argsort(-x if params.largest else x, axis=params.axis, kind="stable")
        indices = np.take(order, np.arange(params.k), axis=params.axis)
        return [np.take_along_axis(x, indices, axis=params.axis), indices.astype(np.int64)]


DEFINITION: LayerDefinition = TopK()
