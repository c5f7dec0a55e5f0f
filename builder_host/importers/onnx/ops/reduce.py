"""Reductions; axes as attribute, later as input."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.folding import numpy_dtype
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

_OPS = {
    "ReduceSum": "sum",
    "ReduceProd": "prod",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceMean": "mean",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceSumSquare": "sum_square",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}
_OF_NOTHING = ("max", "min", "log_sum_exp")  # without elements: the lowest or highest value
_EACH_ALONE = ("l1", "l2", "sum_square", "log_sum")  # not the identity on one element


@operator(*_OPS, since=(1, 11, 12, 13, 18, 20, 28))
def reduce(node: Node) -> Tensor:
    """Without axes all dimensions, or none with noop_with_empty_axes."""
    x = node.input(0)
    op = _OPS[node.op_type]
    keep = bool(node.attr_int("keepdims", 1))
    as_input = node.version >= (13 if node.op_type == "ReduceSum" else 18)
    stated = node.optional_ints(1, "axes") if as_input else node.attr_ints("axes")
    noop = bool(node.attr_int("noop_with_empty_axes", 0)) if as_input else False
    if not stated and noop:
        return node.reduce(op, x, ()) if op in _EACH_ALONE else x
    axes = node.axes(stated, x.type.rank) if stated else tuple(range(x.type.rank))
    if any(x.shape[axis] == 0 for axis in axes) and op in _OF_NOTHING:
        shape = [1 if d in axes else e for d, e in enumerate(x.shape) if keep or d not in axes]
        node.check_size(shape)
        return node.const(np.full(shape, _of_nothing(op, x.dtype)), x.dtype)
    if x.dtype is DataType.BOOL:  # maximum and minimum of booleans
        narrow = node.reduce(op, node.cast(x, DataType.UINT8), axes, keep_dims=keep)
        return node.cast(narrow, DataType.BOOL)
    return node.reduce(op, x, axes, keep_dims=keep)


def _of_nothing(op: str, dtype: DataType) -> float | int:
    """What a reduction of no elements gives, where summing them up would not give it."""
    is_min = op == "min"
    if dtype.is_float:
        return float("inf") if is_min else float("-inf")
    if dtype is DataType.BOOL:
        return int(is_min)
    limits = np.iinfo(numpy_dtype(dtype))
    return int(limits.max if is_min else limits.min)
