"""Slice: bounds as attributes (version 1) or as inputs (10 and later)."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Slice", since=(1, 10, 11, 13))
def slice_(node: Node) -> Tensor:
    """Python slice rules, steps of either sign."""
    x = node.input(0)
    rank = x.type.rank
    if node.version < 10:
        starts, ends = node.attr_ints("starts") or (), node.attr_ints("ends") or ()
        axes, steps = node.attr_ints("axes"), None
    else:
        starts, ends = node.constant_ints(1, "starts"), node.constant_ints(2, "ends")
        axes, steps = node.optional_ints(3, "axes"), node.optional_ints(4, "steps")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        node.fail(
            f"starts {starts}, ends {ends}, axes {axes} and steps {steps} must be equally long"
        )
    if 0 in steps:
        node.fail(f"steps {steps} must not contain 0")
    begin, size, stride = [0] * rank, list(x.shape), [1] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        dim = node.axis(axis, rank, "axes")
        found = range(x.shape[dim])[slice(start, end, step)]
        size[dim] = len(found)
        begin[dim], stride[dim] = (found.start, step) if len(found) else (0, 1)
    return node.slice(x, begin, size, stride)
