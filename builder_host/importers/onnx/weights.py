"""TensorProto to numpy, checked: declared sizes against stored bytes, external files by place.

External data must lie inside the model's own folder. Nothing is allocated before the declared
element count has been compared with the bytes that are there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from builder_host.errors import NetworkError
from builder_host.network.network import DTYPE_OF_NUMPY
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

MAX_CONSTANT_BYTES = 2**31  # as much as one protobuf file can hold
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def element_type(code: int, what: str) -> DataType:
    """DataType of an ONNX element type code. Raises NetworkError naming `what`."""
    return DTYPE_OF_NUMPY[numpy_type(code, what).name]


def numpy_type(code: int, what: str) -> np.dtype[Any]:
    """Numpy type of an ONNX element type code. Raises NetworkError naming `what`."""
    names = onnx.TensorProto.DataType
    name = names.Name(code) if code in names.values() else f"number {code}"
    if name in ("UNDEFINED", "STRING") or name.startswith("number"):
        raise NetworkError(f"{what} has element type {name}; tensors here hold numbers or booleans")
    found: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    if found.name not in DTYPE_OF_NUMPY:
        known = ", ".join(sorted(DTYPE_OF_NUMPY))
        raise NetworkError(f"{what} has element type {name}; supported: {known}")
    return found


def tensor_values(tensor: onnx.TensorProto, folder: Path | None, what: str) -> Array:
    """Values of an initialiser or attribute tensor.

    Args:
        tensor: the stored tensor.
        folder: folder of the model file for external data; None when there is no file.
        what: how messages name the tensor.

    Raises:
        NetworkError: bad dimension, type or byte count, or external data out of place.
    """
    if tensor.HasField("segment"):
        raise NetworkError(f"{what} is stored in segments; save it as one tensor")
    dtype = numpy_type(tensor.data_type, what)
    dims = tuple(int(d) for d in tensor.dims)
    if any(d < 0 for d in dims):
        raise NetworkError(f"{what} has the negative dimension {min(dims)} in {dims}")
    count = math.prod(dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external_values(tensor, folder, what, dims, dtype)
    raw = tensor.raw_data if tensor.HasField("raw_data") else None  # each access is a copy
    if raw is not None:
        expected, stored, unit = count * dtype.itemsize, len(raw), "bytes"
    else:
        stored = max(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
        expected, unit = count, "values"
    if stored != expected:
        raise NetworkError(
            f"{what} of shape {dims} and type {dtype} needs {expected:,} {unit} but holds "
            f"{stored:,}; the file is damaged: export it again"
        )
    if raw is not None:
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(dims)
    return np.asarray(numpy_helper.to_array(tensor)).reshape(dims)


class TensorReader:
    """Values of the stored tensors of one model.

    Attributes:
        folder: of the model file, for external data; None when there is no file.
        external: external files that were read, as the model names them.
    """

    def __init__(self, folder: Path | None) -> None:
        """See the attributes."""
        self.folder = folder
        self.external: set[str] = set()

    def values(self, stored: onnx.TensorProto | onnx.SparseTensorProto, what: str) -> Array:
        """Values of a tensor, dense. Arguments and errors are those of `tensor_values`."""
        if isinstance(stored, onnx.TensorProto):
            values = tensor_values(stored, self.folder, what)
            self._note(stored)
            return values
        values = sparse_values(stored, self.folder, what)
        self._note(stored.values)
        self._note(stored.indices)
        return values

    def _note(self, tensor: onnx.TensorProto) -> None:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self.external.add(_location(tensor))


def sparse_values(sparse: onnx.SparseTensorProto, folder: Path | None, what: str) -> Array:
    """A sparse initialiser as a dense array. Raises NetworkError like `tensor_values`."""
    values = tensor_values(sparse.values, folder, what)
    places = tensor_values(sparse.indices, folder, f"{what} (indices)")
    dims = tuple(int(d) for d in sparse.dims)
    size = math.prod(max(d, 0) for d in dims) * values.dtype.itemsize
    if any(d < 0 for d in dims) or size > MAX_CONSTANT_BYTES:
        raise NetworkError(
            f"{what}: sparse shape {dims} needs {size:,} bytes, the limit is {MAX_CONSTANT_BYTES:,}"
        )
    bad = NetworkError(f"{what}: sparse indices do not fit {values.size} values of {dims}")
    try:
        flat = np.ravel_multi_index(tuple(places.T), dims) if places.ndim == 2 else places
    except (ValueError, TypeError) as error:  # out of bounds, no integers, another rank
        raise bad from error
    if flat.shape != values.shape or (
        flat.size and not 0 <= flat.min() <= flat.max() < math.prod(dims)
    ):
        raise bad
    dense = np.zeros(math.prod(dims), values.dtype)
    dense[flat] = values
    return dense.reshape(dims)


def _external_values(
    tensor: onnx.TensorProto, folder: Path | None, what: str, dims: tuple[int, ...], dtype: Any
) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = _location(tensor)
    try:
        path = _external_path(location, folder, what)
        size = path.stat().st_size
    except OSError as error:
        raise NetworkError(
            f"{what}: external data file '{location[:80]}' cannot be read: {error.strerror}"
        ) from error
    nbytes = math.prod(dims) * dtype.itemsize
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(nbytes)))
    except ValueError as error:
        raise NetworkError(f"{what}: external data offset or length: {error}") from error
    if length != nbytes:
        raise NetworkError(
            f"{what} of shape {dims} and type {dtype} needs {nbytes:,} bytes but its external "
            f"data states {length:,}"
        )
    if offset < 0:
        raise NetworkError(
            f"{what}: external data starts at byte {offset:,} of '{location}'; the model is "
            "damaged: export it again"
        )
    if offset + length > size:
        raise NetworkError(
            f"{what}: external data ends at byte {offset + length:,} of '{location}', which has "
            f"{size:,} bytes; copy the whole file"
        )
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise NetworkError(
            f"{what}: external data file '{path}' cannot be read: {error.strerror}"
        ) from error
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(dims)


def _location(tensor: onnx.TensorProto) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def _external_path(location: str, folder: Path | None, what: str) -> Path:
    if folder is None:
        raise NetworkError(
            f"{what} lies in the external file '{location}', but the model was not read from a "
            "file; pass the path of the model, or its folder"
        )
    base = folder.resolve()
    path = (base / location.replace("\0", "")).resolve()
    inside = not Path(location).is_absolute() and base in path.parents
    if not inside or "\0" in location:
        raise NetworkError(
            f"{what}: external data location '{location}' leaves the model's folder; "
            "keep weights beside the model"
        )
    if not path.is_file():
        raise NetworkError(f"{what}: external data file '{path}' is missing; copy it there")
    return path
