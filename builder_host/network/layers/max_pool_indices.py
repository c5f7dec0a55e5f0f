"""Max pool indices: where in the input the maximum of each window lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers import definition
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.rules import require
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated, pad_or_crop, taps
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MaxPoolIndicesParams:
    """The pooling, and the order in which the spatial elements of a map are counted."""

    pooling: PoolingParams
    is_column_major: bool = False


class MaxPoolIndices:
    """x[N,C,*S] -> INT64 [N,C,*output_spatial]: index of the first maximum in all of x.

    Batches and channels are counted in row-major order; within a map the last dimension varies
    fastest, or with is_column_major the first one.
    """

    kind = "max_pool_indices"
    params_type = MaxPoolIndicesParams

    def infer(self, params: MaxPoolIndicesParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """As for the pooling itself, which must be a maximum."""
        require(params.pooling.mode == "max", f"mode '{params.pooling.mode}' has no position")
        (pooled,) = definition("pooling").infer(params.pooling, inputs)
        return [TensorType(pooled.shape, DataType.INT64)]

    def reference(self, params: MaxPoolIndicesParams, inputs: Sequence[Array]) -> list[Array]:
        """Fold over the taps of the window, with positions beside values."""
        x, pool = np.asarray(inputs[0], dtype=np.float64), params.pooling
        order = range(x.ndim - 2)
        steps = position_steps(x.shape[2:], is_column_major=params.is_column_major)
        inside = sum(np.indices(x.shape[2:])[d] * steps[d] for d in order)
        first = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
        places = (first * int(np.prod(x.shape[2:])) + inside).astype(np.float64)
        needed = [
            (o - 1) * s + dilated(f, d)
            for o, s, f, d in zip(
                pool.output_spatial, pool.strides, pool.window, pool.dilations, strict=True
            )
        ]
        ends = [n - b - e for n, b, e in zip(needed, pool.pads_begin, x.shape[2:], strict=True)]
        begin = (0, 0, *pool.pads_begin)
        values = pad_or_crop(x, begin, (0, 0, *ends), -np.inf)
        places = pad_or_crop(places, begin, (0, 0, *ends), -1.0)
        best = np.full((*x.shape[:2], *pool.output_spatial), -np.inf)
        where = np.full(best.shape, -1.0)
        for _, cells in taps(pool.window, pool.dilations, pool.strides, pool.output_spatial):
            is_better = (places[cells] >= 0) & ((values[cells] > best) | (where < 0))
            where = np.where(is_better, places[cells], where)
            best = np.where(is_better, values[cells], best)
        return [where.astype(np.int64)]


def position_steps(extents: Sequence[int], *, is_column_major: bool) -> tuple[int, ...]:
    """What one step along each spatial dimension adds to an index."""
    ordered = list(extents) if is_column_major else list(extents)[::-1]
    steps = [1]
    for extent in ordered[:-1]:
        steps.append(steps[-1] * extent)
    return tuple(steps if is_column_major else steps[::-1])


DEFINITION: LayerDefinition = MaxPoolIndices()
