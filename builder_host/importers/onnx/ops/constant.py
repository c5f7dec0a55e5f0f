"""Operators that only make constants."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.onnx.folding import check_constant_size
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.network import DTYPE_OF_NUMPY, Tensor
from builder_host.network.tensor_type import TensorType


@operator("Constant", since=(1, 9, 11, 12, 13, 19, 21, 23, 24, 25))
def constant(node: Node) -> Tensor:
    """Exactly one of the value attributes."""
    stated = [a.name for a in node.proto.attribute]
    if len(stated) != 1:
        node.fail(f"exactly one value is needed, got: {', '.join(stated) or 'none'}")
    name = stated[0]
    if name == "value":
        values = node.attr_array("value")
        if values is not None:
            return node.const(values)
    if name == "value_float":
        return node.const(np.asarray(node.attr_float(name, 0.0), np.float32))
    if name == "value_floats":
        return node.const(np.asarray(node.attr_floats(name), np.float32))
    if name == "value_int":
        return node.const(np.asarray(node.attr_int(name, 0), np.int64))
    if name == "value_ints":
        return node.const(np.asarray(node.attr_ints(name), np.int64))
    if name == "sparse_value":
        node.skip_attrs(name)
        sparse = node.attributes[name].sparse_tensor
        return node.const(node.reader.values(sparse, "attribute 'sparse_value'"))
    node.fail(f"attribute '{name}' is not supported; tensors here hold numbers or booleans")


@operator("ConstantOfShape", since=(9, 20, 21, 23, 24, 25))
def constant_of_shape(node: Node) -> Tensor:
    """One value everywhere, float zero by default."""
    shape = node.constant_ints(0, "shape")
    value = node.attr_array("value")
    value = np.zeros(1, np.float32) if value is None else value
    if value.size != 1 or min(shape, default=0) < 0:
        node.fail(f"shape {shape} must not be negative and the value single, got {value.size}")
    check_constant_size(TensorType(shape, DTYPE_OF_NUMPY[value.dtype.name]))
    return node.const(np.full(shape, value.ravel()[0]))


@operator("Range", since=(11, 27))
def range_(node: Node) -> Tensor:
    """Start, limit (left out), step; computed in float64, so `stash_type` changes nothing."""
    node.skip_attrs("stash_type")
    start, limit, delta = (
        node.constant(i, what).reshape(-1) for i, what in enumerate(("start", "limit", "delta"))
    )
    if not start.size == limit.size == delta.size == 1 or not delta[0]:
        node.fail(f"start {start}, limit {limit} and step {delta} must be single, the step not 0")
    is_float = start.dtype.kind == "f"
    first, last, step = (float(v[0]) if is_float else int(v[0]) for v in (start, limit, delta))
    count = max(math.ceil((last - first) / step), 0)
    check_constant_size(TensorType((count,), DTYPE_OF_NUMPY[start.dtype.name]))
    return node.const((first + np.arange(count) * step).astype(start.dtype))


@operator("EyeLike", since=(9, 22))
def eye_like(node: Node) -> Tensor:
    """Ones on one diagonal."""
    x = node.input(0)
    if x.type.rank != 2:
        node.fail(f"a matrix is needed, got {x.type}")
    node.check_size(x.shape)
    values = np.eye(x.shape[0], x.shape[1], k=node.attr_int("k", 0))
    if node.has_attr("dtype"):
        return node.const(values, element_type(node.attr_int("dtype", 0), "attribute 'dtype'"))
    return node.const(values, x.dtype)
