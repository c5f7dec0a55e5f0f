"""Types of TensorRT's API: element types, modes, formats."""

from __future__ import annotations

import builtins
import enum
import math
from collections.abc import Iterable
from typing import Any

from planformat.datatypes import DataType as PlanType


class DataType(enum.Enum):
    """Element type of a tensor."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7
    INT64 = 8

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return PLAN_TYPES[self].size_bytes


float32, float16, int8, int32 = DataType.FLOAT, DataType.HALF, DataType.INT8, DataType.INT32
bool, uint8, bfloat16, int64 = DataType.BOOL, DataType.UINT8, DataType.BF16, DataType.INT64

PLAN_TYPES = {
    DataType.FLOAT: PlanType.FLOAT32,
    DataType.HALF: PlanType.FLOAT16,
    DataType.INT8: PlanType.INT8,
    DataType.INT32: PlanType.INT32,
    DataType.BOOL: PlanType.BOOL,
    DataType.UINT8: PlanType.UINT8,
    DataType.BF16: PlanType.BFLOAT16,
    DataType.INT64: PlanType.INT64,
}
_OF_PLAN = {plan: own for own, plan in PLAN_TYPES.items()}


def checked_type(dtype: Any, what: str) -> DataType:
    """An element type. Raises TypeError for anything else, which names `what`."""
    if not isinstance(dtype, DataType):
        raise TypeError(
            f"{what} is {dtype!r} ({type(dtype).__name__}); expected a DataType such as trt.float32"
        )
    return dtype


def of_plan(dtype: PlanType) -> DataType:
    """The API's name of a plan's element type. Raises TypeError for one that it lacks."""
    if dtype not in _OF_PLAN:
        raise TypeError(f"element type {dtype.text} has no name in this API")
    return _OF_PLAN[dtype]


class TensorIOMode(enum.Enum):
    """Whether a tensor is an input or an output of an engine."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    """Where a tensor's data lies."""

    DEVICE = 0
    HOST = 1


class TensorFormat(enum.Enum):
    """Order of a binding's elements; plans take and give LINEAR."""

    LINEAR = 0


class ExecutionContextAllocationStrategy(enum.Enum):
    """Who gives a context its memory; it is sized by the plan, so that the first two are one."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class LayerInformationFormat(enum.Enum):
    """Form of what the inspector tells."""

    ONELINE = 0
    JSON = 1


class Dims(tuple[int, ...]):
    """Dimensions; a tuple of one sequence, or of the numbers themselves."""

    __slots__ = ()

    def __new__(cls, *dims: Any) -> Dims:
        """`Dims((1, 2))` and `Dims(1, 2)` are the same."""
        is_one = len(dims) == 1 and isinstance(dims[0], Iterable)
        return super().__new__(cls, dims[0] if is_one else dims)

    @property
    def nbDims(self) -> int:  # noqa: N802 - the API's name
        """Number of dimensions."""
        return len(self)


class Dims2(Dims):
    """Two dimensions."""


class Dims3(Dims):
    """Three dimensions."""


class Dims4(Dims):
    """Four dimensions."""


class DimsHW(Dims):
    """Rows and columns."""

    @property
    def h(self) -> int:
        """Rows."""
        return self[0]

    @property
    def w(self) -> int:
        """Columns."""
        return self[1]


class Permutation(Dims):
    """An order of dimensions."""


def volume(dims: Iterable[int]) -> int:
    """Number of elements."""
    return math.prod(dims)


def nptype(dtype: DataType) -> Any:
    """The NumPy type of an element type. Raises TypeError for BF16, which NumPy lacks."""
    import numpy as np

    names: dict[DataType, Any] = {
        DataType.FLOAT: np.float32,
        DataType.HALF: np.float16,
        DataType.INT8: np.int8,
        DataType.INT32: np.int32,
        DataType.BOOL: np.bool_,
        DataType.UINT8: np.uint8,
        DataType.INT64: np.int64,
    }
    if dtype not in names:
        raise TypeError(f"{dtype} has no NumPy type")
    return names[dtype]


PythonBool = builtins.bool
