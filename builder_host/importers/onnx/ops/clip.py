"""Clip: bounds as attributes (up to 6) or as inputs (11 and later)."""

from __future__ import annotations

import math

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

_FLOAT_MAX = 3.4028234663852886e38


@operator("Clip", since=(1, 6, 11, 12, 13))
def clip(node: Node) -> Tensor:
    """min(max(x, low), high); a bound left out does not limit."""
    x = node.input(0)
    if node.version < 11:
        low, high = node.attr_float("min", -_FLOAT_MAX), node.attr_float("max", _FLOAT_MAX)
        low = -math.inf if low <= -_FLOAT_MAX else low
        high = math.inf if high >= _FLOAT_MAX else high
        return _limited(node, x, low, high)
    bounds = [node.optional(1), node.optional(2)]
    for name, bound in zip(("min", "max"), bounds, strict=True):
        if bound is not None and bound.type.num_elems != 1:
            node.fail(f"'{name}' must be one value, got {bound.type}")
    if x.dtype.is_float and all(b is None or b.values is not None for b in bounds):
        known = [None if b is None or b.values is None else float(b.values.item()) for b in bounds]
        low = -math.inf if known[0] is None else known[0]
        return _limited(node, x, low, math.inf if known[1] is None else known[1])
    for op, bound in zip(("max", "min"), bounds, strict=True):
        if bound is not None:
            x = node.binary(op, x, node.reshape(bound, ()))
    return x


def _limited(node: Node, x: Tensor, low: float, high: float) -> Tensor:
    if low == -math.inf and high == math.inf:
        return x
    if low == -math.inf:
        return node.binary("min", x, high)
    if high == math.inf:
        return node.activation("relu", x) if low == 0 else node.binary("max", x, low)
    return node.activation("clip", x, low, high)
