"""Local response normalisation, across channels or within one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LrnParams:
    """y = x / (k + alpha / n * sum of x^2 over the region)^beta; n = size or size * size."""

    size: int
    alpha: float
    beta: float
    k: float
    region: Literal["across", "within"] = "across"


class Lrn:
    """x[N,C,...] -> same. Even sizes (across only) reach (size-1)//2 channels back."""

    kind = "lrn"
    params_type = LrnParams

    def infer(self, params: LrnParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the region and its size."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(params.size >= 1, f"size is {params.size}, must be at least 1")
        require(params.region in ("across", "within"), f"region '{params.region}' is unknown")
        if params.region == "within":
            require(x.rank == 4, f"normalisation within channels needs [N,C,H,W], got {x}")
            require(params.size % 2 == 1, f"size {params.size} within channels must be odd")
        require(x.rank >= 2, f"input needs a channel dimension, got {x}")
        return [x]

    def reference(self, params: LrnParams, inputs: Sequence[Array]) -> list[Array]:
        """Sums by shifted slices; outside counts as zero."""
        x = np.asarray(inputs[0], dtype=np.float64)
        before = (params.size - 1) // 2
        axes = (1,) if params.region == "across" else (2, 3)
        sums = x * x
        for axis in axes:
            widths = [(0, 0)] * x.ndim
            widths[axis] = (before, params.size - 1 - before)
            padded = np.pad(sums, widths)
            extent = x.shape[axis]
            sums = np.zeros_like(x)
            for shift in range(params.size):
                where = [slice(None)] * x.ndim
                where[axis] = slice(shift, shift + extent)
                sums += padded[tuple(where)]
        count = params.size ** len(axes)
        return [x / (params.k + params.alpha / count * sums) ** params.beta]


DEFINITION: LayerDefinition = Lrn()
