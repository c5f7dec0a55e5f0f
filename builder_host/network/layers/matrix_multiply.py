"""Matrix multiply: batched product of two tensors over their last two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import (
    product_type,
    require,
    require_broadcast,
    require_num_inputs,
)
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MatrixMultiplyParams:
    """Whether the last two dimensions of a side are exchanged first."""

    transpose_a: bool = False
    transpose_b: bool = False


class MatrixMultiply:
    """a[...,M,K], b[...,K,N] (rank >= 2, batch dimensions broadcast) -> y[...,M,N].

    An 8-bit a with INT8 b gives the exact integer sums as FLOAT32.
    """

    kind = "matrix_multiply"
    params_type = MatrixMultiplyParams

    def infer(self, params: MatrixMultiplyParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check ranks, the shared dimension and the batch broadcast."""
        require_num_inputs(inputs, 2)
        dtype = product_type(inputs)
        a, b = inputs
        require(
            a.rank >= 2 and b.rank >= 2, f"both sides need rank 2 or more, got {a} and {b}; reshape"
        )
        m, k = a.shape[-2:] if not params.transpose_a else (a.shape[-1], a.shape[-2])
        k_of_b, n = b.shape[-2:] if not params.transpose_b else (b.shape[-1], b.shape[-2])
        require(k == k_of_b, f"shared dimension is {k} in {a} but {k_of_b} in {b}")
        batch = require_broadcast([a.shape[:-2], b.shape[:-2]])
        return [TensorType((*batch, m, n), dtype)]

    def reference(self, params: MatrixMultiplyParams, inputs: Sequence[Array]) -> list[Array]:
        """numpy.matmul."""
        a, b = (v if v.dtype.kind in "iu" else v.astype(np.float64) for v in inputs)
        a = a.swapaxes(-1, -2) if params.transpose_a else a
        b = b.swapaxes(-1, -2) if params.transpose_b else b
        return [np.matmul(a, b)]


DEFINITION: LayerDefinition = MatrixMultiply()
