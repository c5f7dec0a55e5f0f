"""Element types as the protocol names them, and tensors as JSON numbers."""

from __future__ import annotations

import json
import math
import sys
from array import array
from typing import Any

from planformat.datatypes import DataType
from planformat.plan import Buffer
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.json_text import NumberRun

NAMES = {
    DataType.BOOL: "BOOL",
    DataType.UINT8: "UINT8",
    DataType.UINT16: "UINT16",
    DataType.UINT32: "UINT32",
    DataType.UINT64: "UINT64",
    DataType.INT8: "INT8",
    DataType.INT16: "INT16",
    DataType.INT32: "INT32",
    DataType.INT64: "INT64",
    DataType.FLOAT16: "FP16",
    DataType.BFLOAT16: "BF16",
    DataType.FLOAT32: "FP32",
    DataType.FLOAT64: "FP64",
}
"""Names in requests and metadata; BYTES is missing because no plan has strings."""

_ARRAY_CODES = {
    DataType.BOOL: "B",
    DataType.UINT8: "B",
    DataType.UINT16: "H",
    DataType.UINT32: "I",
    DataType.UINT64: "Q",
    DataType.INT8: "b",
    DataType.INT16: "h",
    DataType.INT32: "i",
    DataType.INT64: "q",
    DataType.FLOAT32: "f",
    DataType.FLOAT64: "d",
}

_SLICE_ELEMS = 2048


def has_json_form(dtype: DataType) -> bool:
    """Whether the protocol lets tensors of this type travel as JSON numbers."""
    return dtype in _ARRAY_CODES


def elements_from_json(data: Any, shape: tuple[int, ...], dtype: DataType, where: str) -> bytes:
    """Little-endian elements of a JSON tensor.

    Args:
        data: flat list, lists nested as the shape says, or a `NumberRun`.
        shape: of the tensor.
        dtype: one that has a JSON form.
        where: name of the tensor for messages.

    Raises:
        RequestError: 400: wrong number of elements, wrong nesting, or an element that the type
            cannot hold.
    """
    if not has_json_form(dtype):
        raise RequestError(
            400, f"{where}: {NAMES[dtype]} has no JSON form; send it with the binary extension"
        )
    if isinstance(data, NumberRun):
        if dtype is DataType.BOOL:
            raise RequestError(400, f"{where}: numbers are not BOOL; write true or false")
        slices = data.slices(shape, where)
    elif isinstance(data, list):
        slices = iter((_flattened(data, shape, where),))
    else:
        raise RequestError(400, f"{where}: 'data' must be a list, it is {type(data).__name__}")
    elements = array(_ARRAY_CODES[dtype])
    for part in slices:
        _append(elements, part, dtype, where)
    if sys.byteorder == "big":
        elements.byteswap()
    return elements.tobytes()


def json_text(data: Buffer, dtype: DataType, where: str) -> bytes:
    """A flat JSON list of the elements, made in slices so that no thread is kept waiting long.

    Raises:
        RequestError: 400: the type has no JSON form, or an element is not finite.
    """
    if not has_json_form(dtype):
        raise RequestError(
            400,
            f"{where}: {NAMES[dtype]} has no JSON form; ask for binary_data",
        )
    elements = array(_ARRAY_CODES[dtype])
    elements.frombytes(data)
    if sys.byteorder == "big":
        elements.byteswap()
    texts = []
    for begin in range(0, len(elements), _SLICE_ELEMS):
        values: list[Any] = elements[begin : begin + _SLICE_ELEMS].tolist()
        if dtype is DataType.BOOL:
            values = [value != 0 for value in values]
        try:
            texts.append(json.dumps(values, separators=(",", ":"), allow_nan=False)[1:-1])
        except ValueError:
            at = next(i for i, value in enumerate(values) if not math.isfinite(value))
            raise RequestError(
                400,
                f"{where}: element {begin + at:,} is {values[at]}, which JSON cannot carry; ask "
                "for binary_data",
            ) from None
    return ("[" + ",".join(texts) + "]").encode("ascii")


def _append(elements: array[Any], values: list[Any], dtype: DataType, where: str) -> None:
    if dtype is DataType.BOOL:
        wrong = next((v for v in values if not isinstance(v, bool)), None)
        if wrong is not None:
            raise RequestError(400, f"{where}: {wrong!r:.40} is not a BOOL; write true or false")
    elif any(value is True or value is False for value in values):
        raise RequestError(400, f"{where}: true and false are BOOL, the tensor is {NAMES[dtype]}")
    begin = len(elements)
    try:
        elements.extend(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(400, f"{where}: not a list of {NAMES[dtype]}: {error}") from error
    if dtype.is_float and not all(map(math.isfinite, elements[begin:])):
        raise RequestError(400, f"{where}: a number is too large for {NAMES[dtype]}")


def _flattened(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    if not data or not isinstance(data[0], list):
        if len(data) != math.prod(shape):
            raise RequestError(
                400,
                f"{where}: {len(data):,} elements, shape {list(shape)} has {math.prod(shape):,}",
            )
        return data
    level: list[Any] = data
    for depth, extent in enumerate(shape):
        if depth == 0:
            if len(level) != extent:
                raise _misnested(where, shape)
            continue
        deeper: list[Any] = []
        for row in level:
            if not isinstance(row, list) or len(row) != extent:
                raise _misnested(where, shape)
            deeper.extend(row)
        level = deeper
    return level


def _misnested(where: str, shape: tuple[int, ...]) -> RequestError:
    return RequestError(
        400, f"{where}: the lists are not nested as shape {list(shape)} says; nest them or go flat"
    )
