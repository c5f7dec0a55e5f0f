"""Weights of a caffemodel, and mean files (binaryproto)."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import ImportModelError
from builder_host.importers.caffe import wire

Array = npt.NDArray[Any]

# Field numbers of caffe.proto.
_NET_LAYERS_V1, _NET_LAYER = 2, 100
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_NAME, _V1_BLOBS = 4, 6
_BLOB_LEGACY = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLE_DATA = 5, 7, 8
_BLOB_RAW_TYPE, _BLOB_RAW_DATA = 10, 12
_SHAPE_DIM = 1
_HDF5_MAGIC = b"\x89HDF"
_RAW_DTYPES = {0: "<f8", 1: "<f4", 2: "<f2"}  # enum Type
_MAX_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class CaffeModel:
    """A weights file.

    Attributes:
        path: file it came from.
        blobs: per layer name the arrays in file order: float32, float64 or float16 in the
            file's shape, views of the mapped file where it holds them in one piece.
    """

    path: str
    blobs: dict[str, tuple[Array, ...]]


def read_caffemodel(path: str | Path) -> CaffeModel:
    """Read the weights of every layer by name, of `layer` and V1 `layers` alike.

    Raises:
        ImportModelError: unreadable or damaged; byte, layer and blob are named.
    """
    data = _mapped(Path(path))
    if bytes(data[:4]) == _HDF5_MAGIC:
        raise ImportModelError(
            str(path),
            [
                "is HDF5, not protobuf; load it in Caffe and save it as .caffemodel "
                "(net.save), then import that"
            ],
        )
    blobs: dict[str, tuple[Array, ...]] = {}
    try:
        for field in wire.fields(data, 0, len(data)):
            if field.number not in (_NET_LAYER, _NET_LAYERS_V1):
                continue
            if field.wire_type != wire.LENGTH:
                raise wire.WireError(f"byte {field.start}: a layer is no message")
            is_v1 = field.number == _NET_LAYERS_V1
            name, found = _layer(
                data,
                field,
                _V1_NAME if is_v1 else _LAYER_NAME,
                _V1_BLOBS if is_v1 else _LAYER_BLOBS,
            )
            if found:
                blobs[name] = found
    except wire.WireError as error:
        raise ImportModelError(
            str(path),
            [
                f"{error}; the file has {len(data)} bytes; "
                "it is cut short, damaged or no caffemodel: fetch it again"
            ],
        ) from error
    if not blobs:
        raise ImportModelError(
            str(path),
            [f"no layer with weights in {len(data)} bytes; is it a caffemodel?"],
        )
    return CaffeModel(str(path), blobs)


def read_binaryproto(path: str | Path) -> Array:
    """Read a mean file: float32 array, [channels,height,width] behind the batch as stored.

    Args:
        path: binaryproto file.

    Raises:
        ImportModelError: unreadable or damaged.
    """
    data = _mapped(Path(path))
    try:
        blob = _blob(data, 0, len(data), "mean")
    except wire.WireError as error:
        raise ImportModelError(
            str(path),
            [f"{error}; the file has {len(data)} bytes; it is cut short or no binaryproto"],
        ) from error
    if not blob.size:
        raise ImportModelError(str(path), ["holds no values; is it a binaryproto?"])
    return blob.astype(np.float32)


def _mapped(path: Path) -> memoryview:
    """The file's bytes; the mapping lives as long as a view of it does."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ImportModelError(str(path), [f"cannot be read: {error.strerror}"]) from error


def _layer(
    data: memoryview, layer: wire.Field, name_field: int, blobs_field: int
) -> tuple[str, tuple[Array, ...]]:
    name = ""
    places: list[wire.Field] = []
    for field in wire.fields(data, layer.start, layer.end):
        if field.wire_type != wire.LENGTH:
            continue
        if field.number == name_field:
            name = bytes(data[field.start : field.end]).decode("utf-8", errors="replace")
        elif field.number == blobs_field:
            places.append(field)
    return name, tuple(
        _blob(data, place.start, place.end, f"layer '{name}' blob {index}")
        for index, place in enumerate(places)
    )


def _blob(data: memoryview, start: int, end: int, where: str) -> Array:
    """One BlobProto as an array. Raises WireError naming `where`."""
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    pieces: dict[int, list[Array]] = {_BLOB_DATA: [], _BLOB_DOUBLE_DATA: [], _BLOB_RAW_DATA: []}
    raw_type: int | None = None
    for field in wire.fields(data, start, end):
        if field.number in _BLOB_LEGACY and field.wire_type == wire.VARINT:
            legacy[field.number] = wire.signed(field.value)
        elif field.number == _BLOB_SHAPE and field.wire_type == wire.LENGTH:
            shape = _shape(data, field)
        elif field.number == _BLOB_DATA:
            pieces[_BLOB_DATA].append(_values(data, field, "<f4", where))
        elif field.number == _BLOB_DOUBLE_DATA:
            pieces[_BLOB_DOUBLE_DATA].append(_values(data, field, "<f8", where))
        elif field.number == _BLOB_RAW_TYPE:
            raw_type = field.value
        elif field.number == _BLOB_RAW_DATA:
            pieces[_BLOB_RAW_DATA].append(_values(data, field, "u1", where))
    present = [number for number, found in pieces.items() if found]
    if len(present) > 1:
        raise wire.WireError(f"byte {start}: {where} has values in fields {present} at once")
    found = pieces[present[0]] if present else [np.zeros(0, np.float32)]
    values = found[0] if len(found) == 1 else np.concatenate(found)
    if present == [_BLOB_RAW_DATA]:
        values = _raw(values, raw_type, start, where)
    if shape is None and legacy:
        shape = [legacy.get(number, 0) for number in _BLOB_LEGACY]
    if shape is None:
        shape = [values.size]
    if any(d < 0 for d in shape) or math.prod(shape) != values.size:
        raise wire.WireError(
            f"byte {start}: {where} has shape {tuple(shape)} but {values.size} values"
        )
    return values.reshape(shape)


def _shape(data: memoryview, field: wire.Field) -> list[int]:
    dims: list[int] = []
    for part in wire.fields(data, field.start, field.end):
        if part.number == _SHAPE_DIM and part.wire_type in (wire.VARINT, wire.LENGTH):
            for dim in wire.packed_varints(data, part):
                dims.append(dim)
                if len(dims) > _MAX_DIMENSIONS:
                    raise wire.WireError(
                        f"byte {field.start}: a shape has more than {_MAX_DIMENSIONS} dimensions"
                    )
    return dims


def _values(data: memoryview, field: wire.Field, dtype: str, where: str) -> Array:
    size = np.dtype(dtype).itemsize
    length = field.end - field.start
    if field.wire_type == wire.VARINT or length % size:
        raise wire.WireError(
            f"byte {field.start}: {where} has {length} bytes of values, no multiple of {size}"
        )
    return np.frombuffer(data, dtype, count=length // size, offset=field.start)


def _raw(values: Array, raw_type: int | None, start: int, where: str) -> Array:
    dtype = _RAW_DTYPES.get(raw_type if raw_type is not None else -1)
    if dtype is None:
        raise wire.WireError(
            f"byte {start}: {where} has raw data of type {raw_type}; "
            "DOUBLE (0), FLOAT (1) and FLOAT16 (2) can be read"
        )
    if values.size % np.dtype(dtype).itemsize:
        raise wire.WireError(f"byte {start}: {where} has {values.size} bytes of {dtype} values")
    return values.view(dtype)
