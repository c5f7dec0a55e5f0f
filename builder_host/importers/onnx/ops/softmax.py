"""Softmax, LogSoftmax and Hardmax; before version 13 all dimensions from `axis` on count as one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.network import Tensor


@operator("Softmax", "LogSoftmax", since=(1, 11, 13))
def softmax(node: Node) -> Tensor:
    """One softmax layer, between reshapes where the old rule needs them."""
    log = node.op_type == "LogSoftmax"
    return _over_axis(node, lambda x, axis: node.add("softmax", SoftmaxParams(axis, log), x))


@operator("Hardmax", since=(1, 11, 13))
def hardmax(node: Node) -> Tensor:
    """One at the first maximum, else zero."""

    def one_hot(x: Tensor, axis: int) -> Tensor:
        first = node.add("arg_reduce", ArgReduceParams("max", axis), x)
        node.check_size((x.shape[axis],))
        shape = [1] * x.type.rank
        shape[axis] = x.shape[axis]
        places = node.const(np.arange(x.shape[axis], dtype=np.int64).reshape(shape))
        return node.cast(node.binary("eq", first, places), x.dtype)

    return _over_axis(node, one_hot)


def _over_axis(node: Node, emit: Callable[[Tensor, int], Tensor]) -> Tensor:
    x = node.input(0)
    if node.version >= 13:
        return emit(x, node.axis(node.attr_int("axis", -1), x.type.rank))
    stated = node.attr_int("axis", 1)
    axis = stated if stated == x.type.rank else node.axis(stated, x.type.rank)
    wide = [i for i in range(axis, x.type.rank) if x.shape[i] != 1]
    if len(wide) == 1:
        return emit(x, wide[0])
    matrix = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return node.reshape(emit(node.reshape(x, matrix), 1), x.shape)
