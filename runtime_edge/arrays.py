"""NumPy arrays as bindings. With `batching` the only module of the runtime that imports NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    return _made(shape, kind, prod(shape) * kind.itemsize)[0]


def _made(shape: tuple[int, ...], kind: np.dtype[Any], nbytes: int) -> tuple[Any, int]:
    """A new aligned array and its address."""
    raw = np.empty(nbytes + ALIGNMENT_BYTES, np.uint8)
    address = buffer_address(raw, is_writable=True)
    offset = -address % ALIGNMENT_BYTES
    return np.ndarray(shape, kind, raw, offset), address + offset


@dataclass(frozen=True, slots=True)
class _Row:
    """What an array for one binding must be."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    nbytes: int


class ArrayBinder:
    """Checks the arrays of one profile; made once, so that an inference looks nothing up."""

    def __init__(self, bindings: Sequence[Binding], shapes: Sequence[tuple[int, ...]]) -> None:
        """Bindings of the plan and their shapes in the profile, in the same order."""
        self._rows: list[_Row] = []
        for binding, shape in zip(bindings, shapes, strict=True):
            stored, kind = stored_shape(shape, binding.format), NUMPY_TYPES[binding.dtype]
            nbytes = prod(stored) * kind.itemsize
            self._rows.append(_Row(binding.name, binding.is_input, stored, kind, nbytes))
        self._output_names = [row.name for row in self._rows if not row.is_input]

    def bind(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, is_strict: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One array per binding: checked inputs, given or new outputs.

        Returns:
            Arrays by name, and what `BindingTable.update` takes for them while the caller keeps
            them: addresses, or the array itself where it is strided or read-only, for the table to
            refuse.

        Raises:
            BindingError: a name is unknown, an input is missing, or shape or element type differ.
            StrictModeError: is_strict, and an array would have to be made.
        """
        arrays: dict[str, Any] = {}
        values: dict[str, Any] = {}
        num_given = 0
        for row in self._rows:
            name, is_input = row.name, row.is_input
            array = (inputs if is_input else outputs).get(name)
            if array is None:
                if is_input or is_strict:
                    self._raise_missing(row)
                array, values[name] = _made(row.shape, row.kind, row.nbytes)
            else:
                num_given += 1
                _check(array, row)
                try:
                    values[name] = buffer_address(array, is_writable=not is_input)
                except (BufferError, ValueError):
                    if is_input and not is_strict:
                        array = np.ascontiguousarray(array)
                    values[name] = array
            arrays[name] = array
        if num_given != len(inputs) + len(outputs):
            self._raise_unknown(inputs, outputs)
        return arrays, values

    def outputs(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs among arrays by name."""
        return {name: arrays[name] for name in self._output_names}

    def _raise_missing(self, row: _Row) -> None:
        if row.is_input:
            raise BindingError(
                f"input '{row.name}' is missing; the plan has the inputs "
                + ", ".join(r.name for r in self._rows if r.is_input)
            )
        raise StrictModeError(
            f"output '{row.name}': strict mode forbids the runtime to make a result array; pass it "
            "in outputs="
        )

    def _raise_unknown(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        known = [r.name for r in self._rows if r.is_input]
        unknown = [name for name in inputs if name not in known]
        unknown += [name for name in outputs if name not in self._output_names]
        if unknown:
            raise BindingError(
                f"the plan has no such input or output: {', '.join(unknown)}; inputs are "
                f"{', '.join(known)}, outputs are {', '.join(self._output_names)}"
            )


def _check(array: Any, row: _Row) -> None:
    """Raise BindingError for what is no array of the right type and shape."""
    if isinstance(array, np.ndarray) and array.dtype == row.kind and array.shape == row.shape:
        return
    what = f"{'input' if row.is_input else 'output'} '{row.name}'"
    if not isinstance(array, np.ndarray):
        raise BindingError(
            f"{what}: got {type(array).__name__}, expected a NumPy array of {row.kind}; "
            "addresses and other buffers go to enqueue()"
        )
    if array.dtype != row.kind:
        raise BindingError(
            f"{what}: elements are {array.dtype}, expected {row.kind}; convert with "
            f".astype(numpy.{row.kind.name})"
        )
    raise BindingError(
        f"{what}: shape is {list(array.shape)}, this profile has {list(row.shape)}; reshape it or "
        "create a context for another profile"
    )
