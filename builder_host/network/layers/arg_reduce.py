"""Arg reduce: position of the largest or smallest element along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers.reduce import reduced_shape
from builder_host.network.rules import require, require_axis, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ArgReduceParams:
    """Of equal elements the first counts, or the last."""

    op: Literal["max", "min"]
    axis: int
    keep_dims: bool = True
    select_last: bool = False


class ArgReduce:
    """x -> INT64 positions along the axis."""

    kind = "arg_reduce"
    params_type = ArgReduceParams

    def infer(self, params: ArgReduceParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check operation and axis."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(params.op in ("max", "min"), f"op '{params.op}' is neither max nor min")
        require_axis(params.axis, x.rank)
        require(x.shape[params.axis] > 0, f"axis {params.axis} of {x} has no elements")
        shape = reduced_shape(x.shape, (params.axis,), params.keep_dims)
        return [TensorType(shape, DataType.INT64)]

    def reference(self, params: ArgReduceParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.argmax or argmin."""
        x = np.asarray(inputs[0])
        find = np.argmax if params.op == "max" else np.argmin
        if params.select_last:
            found = x.shape[params.axis] - 1 - find(np.flip(x, params.axis), axis=params.axis)
        else:
            found = find(x, axis=params.axis)
        shape = reduced_shape(x.shape, (params.axis,), params.keep_dims)
        return [np.asarray(found, dtype=np.int64).reshape(shape)]


DEFINITION: LayerDefinition = ArgReduce()
