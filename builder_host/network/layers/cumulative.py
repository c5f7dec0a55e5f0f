"""Cumulative: running sums or products along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_axis, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CumulativeParams:
    """How elements are folded.

    Attributes:
        op: running sum or product.
        axis: along which.
        exclusive: an element does not count for its own place.
        reverse: from the last element to the first.
    """

    op: Literal["sum", "product"]
    axis: int
    exclusive: bool = False
    reverse: bool = False


class Cumulative:
    """x -> y of x's type and shape; integers wrap."""

    kind = "cumulative"
    params_type = CumulativeParams

    def infer(self, params: CumulativeParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the axis and the operation."""
        require_num_inputs(inputs, 1)
        require(params.op in ("sum", "product"), f"op '{params.op}' is neither sum nor product")
        require(inputs[0].dtype is not DataType.BOOL, "booleans have no running sum; cast them")
        require_axis(params.axis, inputs[0].rank)
        return [inputs[0]]

    def reference(self, params: CumulativeParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy's, on the reversed axis when asked for."""
        x = np.moveaxis(np.asarray(inputs[0]), params.axis, -1)
        x = x[..., ::-1] if params.reverse else x
        fold = np.cumsum if params.op == "sum" else np.cumprod
        y = np.asarray(fold(x, axis=-1))
        if params.exclusive and x.shape[-1]:
            first = np.full((*x.shape[:-1], 1), 0 if params.op == "sum" else 1, x.dtype)
            y = np.concatenate([first, y[..., :-1]], axis=-1)
        y = y[..., ::-1] if params.reverse else y
        return [np.ascontiguousarray(np.moveaxis(y, -1, params.axis))]


DEFINITION: LayerDefinition = Cumulative()
