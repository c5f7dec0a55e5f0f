"""Cast: another element type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

_INTEGERS = {
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT16: np.int16,
    DataType.UINT16: np.uint16,
    DataType.INT32: np.int32,
    DataType.UINT32: np.uint32,
    DataType.INT64: np.int64,
    DataType.UINT64: np.uint64,
}


@dataclass(frozen=True, slots=True)
class CastParams:
    """The element type to reach."""

    dtype: DataType


class Cast:
    """x -> x as another type: floats truncate to integers, integers wrap, booleans are x != 0.

    The reference does not round between float types.
    """

    kind = "cast"
    params_type = CastParams

    def infer(self, params: CastParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Any type to any other."""
        require_num_inputs(inputs, 1)
        return [TensorType(inputs[0].shape, params.dtype)]

    def reference(self, params: CastParams, inputs: Sequence[Array]) -> list[Array]:
        """In the reference class of the wanted type."""
        x = np.asarray(inputs[0])
        if params.dtype.is_float:
            return [x.astype(np.float64)]
        if params.dtype is DataType.BOOL:
            return [x != 0]
        if x.dtype.kind == "f":
            x = np.nan_to_num(np.trunc(x))
        with np.errstate(all="ignore"):
            return [x.astype(np.int64).astype(_INTEGERS[params.dtype]).astype(np.int64)]


DEFINITION: LayerDefinition = Cast()
