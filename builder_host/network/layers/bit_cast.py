"""Bit cast: the same bytes as another element type of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

# Types whose values the float64 and int64 references carry without loss.
_NUMPY_TYPES = {
    DataType.FLOAT32: np.float32,
    DataType.FLOAT16: np.float16,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT16: np.int16,
    DataType.UINT16: np.uint16,
    DataType.INT32: np.int32,
    DataType.UINT32: np.uint32,
    DataType.INT64: np.int64,
    DataType.UINT64: np.uint64,
    DataType.BOOL: np.uint8,
}


@dataclass(frozen=True, slots=True)
class BitCastParams:
    """The element type that the bytes have, and the one that they get."""

    source: DataType
    dtype: DataType


class BitCast:
    """x -> the same bytes; a boolean is the byte 0 or 1."""

    kind = "bit_cast"
    params_type = BitCastParams

    def infer(self, params: BitCastParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Both types have one size and an exact reference."""
        require_num_inputs(inputs, 1)
        known = params.source in _NUMPY_TYPES and params.dtype in _NUMPY_TYPES
        require(
            known and params.source.size_bytes == params.dtype.size_bytes,
            f"bytes of {params.source.text} cannot be taken as {params.dtype.text}",
        )
        require(
            params.source is inputs[0].dtype,
            f"the input is {inputs[0]}, stated was {params.source.text}",
        )
        return [TensorType(inputs[0].shape, params.dtype)]

    def reference(self, params: BitCastParams, inputs: Sequence[Array]) -> list[Array]:
        """A numpy view."""
        x = np.asarray(inputs[0])
        with np.errstate(all="ignore"):
            stored = np.ascontiguousarray(x).astype(_NUMPY_TYPES[params.source])
        y = stored.view(_NUMPY_TYPES[params.dtype]).reshape(x.shape)
        if params.dtype is DataType.BOOL:
            return [y != 0]
        return [y.astype(np.float64 if params.dtype.is_float else np.int64)]


DEFINITION: LayerDefinition = BitCast()
