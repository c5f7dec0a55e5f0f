"""Constants of a GraphDef as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.uff.problem import NodeProblem

Array = npt.NDArray[Any]

# TensorFlow's DataType numbers: numpy type, field of single values.
_TYPES = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("|u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("|i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("|b1", "bool_val"),
    19: ("<f2", "half_val"),
}
# What a UFF network has: other types are read as the nearest of these.
_UFF_TYPES = {"<f8": "<f4", "|u1": "<i4", "|b1": "<i4", "|i1": "<i1"}
_MAX_RANK = 8
_MAX_ELEMS = 1 << 29
MAX_REPEATED_ELEMS = 1 << 26


def uff_dtype(number: int) -> str:
    """Numpy name, as UFF knows it, of an element type. Raises NodeProblem for another one."""
    if number not in _TYPES:
        raise NodeProblem(f"element type {number} of TensorFlow cannot be imported")
    name = _TYPES[number][0]
    return _UFF_TYPES.get(name, name)


def shape_of(message: Any) -> tuple[int, ...]:
    """Dimensions; -1 where one is open, empty where the rank is."""
    return () if message.unknown_rank else tuple(int(d.size) for d in message.dim)


def tensor_array(message: Any) -> Array:
    """Values of a TensorProto in a type of UFF. Raises NodeProblem when they do not fit."""
    if message.dtype not in _TYPES:
        raise NodeProblem(f"element type {message.dtype} of TensorFlow cannot be imported")
    dtype, field = _TYPES[message.dtype]
    shape = shape_of(message.tensor_shape)
    count = math.prod(shape)
    if len(shape) > _MAX_RANK or any(d < 0 for d in shape) or count > _MAX_ELEMS:
        raise NodeProblem(f"shape {shape} of a constant is not possible")
    if message.tensor_content:
        size = count * np.dtype(dtype).itemsize
        if len(message.tensor_content) != size:
            raise NodeProblem(
                f"shape {shape} of {dtype} needs {size} bytes, the file holds "
                f"{len(message.tensor_content)}; it is damaged"
            )
        values = np.frombuffer(message.tensor_content, dtype)
    else:
        values = _single_values(message, dtype, field, count)
    return values.astype(_UFF_TYPES.get(dtype, dtype)).reshape(shape)


def _single_values(message: Any, dtype: str, field: str, count: int) -> Array:
    """Values stored one by one; the last one stands for all that are missing."""
    stored = list(getattr(message, field))
    if len(stored) > count:
        raise NodeProblem(f"holds {len(stored)} values for {count} elements; it is damaged")
    if field == "half_val":
        values: Array = np.asarray(stored, np.uint16).view(np.float16)
    else:
        values = np.asarray(stored, dtype)
    if count - len(stored) > MAX_REPEATED_ELEMS:
        raise NodeProblem(
            f"one value stands for {count:,} elements, the limit is {MAX_REPEATED_ELEMS:,}"
        )
    if not stored:
        return np.zeros(count, dtype)
    return np.concatenate([values, np.full(count - len(stored), values[-1])])
