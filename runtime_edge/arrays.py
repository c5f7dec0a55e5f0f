"""NumPy arrays as bindings. With `batching` the only module of the runtime that imports NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from planformat.datatypes import DataType, TensorFormat
from planformat.plan import Binding
from planformat.tensors import storage_elems
from runtime_edge.buffers import buffer_address
from runtime_edge.errors import BindingError, StrictModeError
from runtime_edge.memory import ALIGNMENT_BYTES

NUMPY_TYPES: Mapping[DataType, np.dtype[Any]] = {
    DataType.FLOAT32: np.dtype(np.float32),
    DataType.FLOAT16: np.dtype(np.float16),
    DataType.BFLOAT16: np.dtype(np.uint16),  # NumPy has no bfloat16: raw bits
    DataType.FLOAT64: np.dtype(np.float64),
    DataType.INT8: np.dtype(np.int8),
    DataType.UINT8: np.dtype(np.uint8),
    DataType.INT16: np.dtype(np.int16),
    DataType.UINT16: np.dtype(np.uint16),
    DataType.INT32: np.dtype(np.int32),
    DataType.UINT32: np.dtype(np.uint32),
    DataType.INT64: np.dtype(np.int64),
    DataType.UINT64: np.dtype(np.uint64),
    DataType.BOOL: np.dtype(np.bool_),
}


def stored_shape(shape: tuple[int, ...], format: TensorFormat) -> tuple[int, ...]:
    """Shape of the array that holds a tensor: the logical one, or flat for blocked formats."""
    return shape if format is TensorFormat.LINEAR else (storage_elems(shape, format),)


def empty_aligned(shape: tuple[int, ...], dtype: DataType) -> Any:
    """New array whose first element is aligned to 64 bytes."""
    kind = NUMPY_TYPES[dtype]
    raw = np.empty(prod(shape) * kind.itemsize + ALIGNMENT_BYTES, np.uint8)
    address = buffer_address(raw, is_writable=True)
    return np.ndarray(shape, kind, raw, -address % ALIGNMENT_BYTES)


def bound_arrays(
    bindings: Sequence[Binding],
    shapes: Sequence[tuple[int, ...]],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    is_strict: bool,
) -> dict[str, Any]:
    """One array per binding: checked inputs, given or new outputs.

    Raises:
        BindingError: a name is unknown, an input is missing, or shape or element type differ.
        StrictModeError: is_strict, and an array would have to be made.
    """
    arrays: dict[str, Any] = {}
    for binding, shape in zip(bindings, shapes, strict=True):
        given = inputs if binding.is_input else outputs
        what = f"{'input' if binding.is_input else 'output'} '{binding.name}'"
        wanted = stored_shape(shape, binding.format)
        if binding.name in given:
            array = _checked(given[binding.name], wanted, binding.dtype, what)
            if not array.flags.c_contiguous and binding.is_input and not is_strict:
                array = np.ascontiguousarray(array)
        elif binding.is_input:
            raise BindingError(
                f"{what} is missing; the plan has the inputs "
                + ", ".join(b.name for b in bindings if b.is_input)
            )
        elif is_strict:
            raise StrictModeError(
                f"{what}: strict mode forbids the runtime to make a result array; pass it in "
                "outputs="
            )
        else:
            array = empty_aligned(wanted, binding.dtype)
        arrays[binding.name] = array
    unknown = [name for name in (*inputs, *outputs) if name not in arrays]
    misplaced = [b.name for b in bindings if b.name in (outputs if b.is_input else inputs)]
    if unknown or misplaced:
        raise BindingError(
            f"the plan has no such input or output: {', '.join(unknown + misplaced)}; inputs are "
            + ", ".join(b.name for b in bindings if b.is_input)
            + ", outputs are "
            + ", ".join(b.name for b in bindings if not b.is_input)
        )
    return arrays


def array_addresses(bindings: Sequence[Binding], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What `BindingTable.update` takes for checked arrays that the caller keeps alive.

    Args:
        bindings: of the plan.
        arrays: from `bound_arrays`.

    Returns:
        Addresses; an array that is strided or read-only stays itself, for the table to refuse.
    """
    found: dict[str, Any] = {}
    for binding in bindings:
        array = arrays[binding.name]
        try:
            found[binding.name] = buffer_address(array, is_writable=not binding.is_input)
        except (BufferError, ValueError):
            found[binding.name] = array
    return found


def _checked(value: Any, shape: tuple[int, ...], dtype: DataType, what: str) -> Any:
    if not isinstance(value, np.ndarray):
        raise BindingError(
            f"{what}: got {type(value).__name__}, expected a NumPy array of {NUMPY_TYPES[dtype]}; "
            "addresses and other buffers go to enqueue()"
        )
    if value.dtype != NUMPY_TYPES[dtype]:
        raise BindingError(
            f"{what}: elements are {value.dtype}, expected {NUMPY_TYPES[dtype]}; convert with "
            f".astype(numpy.{NUMPY_TYPES[dtype].name})"
        )
    if value.shape != shape:
        raise BindingError(
            f"{what}: shape is {list(value.shape)}, this profile has {list(shape)}; reshape it or "
            "create a context for another profile"
        )
    return value
