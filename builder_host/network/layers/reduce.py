"""Reduce: fold some axes by one operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.pointwise_kind import as_reference
from builder_host.network.rules import require, require_axis, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


def _log_sum_exp(x: Array, axis: tuple[int, ...]) -> Array:
    peak = np.max(x, axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    return np.asarray(np.log(np.sum(np.exp(x - peak), axis=axis, keepdims=True)) + peak)


REDUCE_OPS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "sum": lambda x, axis: np.sum(x, axis=axis, keepdims=True),
    "prod": lambda x, axis: np.prod(x, axis=axis, keepdims=True),
    "max": lambda x, axis: np.max(x, axis=axis, keepdims=True),
    "min": lambda x, axis: np.min(x, axis=axis, keepdims=True),
    "mean": lambda x, axis: np.mean(x, axis=axis, keepdims=True),
    "l1": lambda x, axis: np.sum(np.abs(x), axis=axis, keepdims=True),
    "l2": lambda x, axis: np.sqrt(np.sum(x * x, axis=axis, keepdims=True)),
    "sum_square": lambda x, axis: np.sum(x * x, axis=axis, keepdims=True),
    "log_sum": lambda x, axis: np.log(np.sum(x, axis=axis, keepdims=True)),
    "log_sum_exp": _log_sum_exp,
}


@dataclass(frozen=True, slots=True)
class ReduceParams:
    """One of `REDUCE_OPS` over distinct axes; no axes: applied to each element alone."""

    op: str
    axes: tuple[int, ...]
    keep_dims: bool = True


class Reduce:
    """x -> y with the axes of extent 1, or without them."""

    kind = "reduce"
    params_type = ReduceParams

    def infer(self, params: ReduceParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the operation and the axes."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(params.op in REDUCE_OPS, f"op '{params.op}' is not one of {', '.join(REDUCE_OPS)}")
        for axis in params.axes:
            require_axis(axis, x.rank)
        require(len(set(params.axes)) == len(params.axes), f"axes {params.axes} repeat one")
        return [TensorType(reduced_shape(x.shape, params.axes, params.keep_dims), x.dtype)]

    def reference(self, params: ReduceParams, inputs: Sequence[Array]) -> list[Array]:
        """The operation in float64; integer results are truncated."""
        x = np.asarray(inputs[0])
        kind = x.dtype.kind
        if kind == "f":
            x = x.astype(np.float64)
        with np.errstate(all="ignore"):
            y = REDUCE_OPS[params.op](x, params.axes)
        return [
            as_reference(y, kind).reshape(reduced_shape(x.shape, params.axes, params.keep_dims))
        ]


def reduced_shape(shape: tuple[int, ...], axes: Sequence[int], keep_dims: bool) -> tuple[int, ...]:
    """Shape after reducing `axes`."""
    if keep_dims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


DEFINITION: LayerDefinition = Reduce()
