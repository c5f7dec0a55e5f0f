"""Constant folding while importing: a layer whose inputs are all known becomes its values.

Shape arithmetic (Shape, Gather, Concat, ...) disappears this way before any layer exists. The
layers' own references compute, in float64 or int64, and the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.importers.onnx.weights import MAX_CONSTANT_BYTES, Array
from builder_host.network import layers as kinds
from builder_host.network.network import DTYPE_OF_NUMPY
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

_NUMPY_NAME = {dtype: name for name, dtype in DTYPE_OF_NUMPY.items()}


def numpy_dtype(dtype: DataType) -> np.dtype[Any]:
    """Numpy type in which constants of an element type are kept."""
    if dtype is DataType.BFLOAT16:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(_NUMPY_NAME[dtype])


def widened(values: Array) -> Array:
    """The values as references take them: float64, int64 or bool."""
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return values.astype(np.float64)


def check_constant_size(tensor: TensorType) -> None:
    """Raise NetworkError when a computed constant would be larger than any file can hold."""
    size = tensor.num_elems * tensor.dtype.size_bytes
    if size > MAX_CONSTANT_BYTES:
        raise NetworkError(
            f"a constant of {tensor} needs {size:,} bytes, the limit is {MAX_CONSTANT_BYTES:,}; "
            "the shape arithmetic of the model is probably damaged"
        )


def fold_layer(kind: str, params: Any, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of a layer on known values, in the layer's output types. Raises NetworkError."""
    definition = kinds.definition(kind)
    types = definition.infer(
        params, [TensorType(a.shape, DTYPE_OF_NUMPY[a.dtype.name]) for a in inputs]
    )
    for output in types:
        check_constant_size(output)
    with np.errstate(all="ignore"):
        results = definition.reference(params, [widened(a) for a in inputs])
        return [
            np.asarray(r).astype(numpy_dtype(t.dtype)).reshape(t.shape)
            for r, t in zip(results, types, strict=True)
        ]
