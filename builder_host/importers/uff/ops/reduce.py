"""Reduce, ArgMax, ArgMin: along axes of the file's tensor, the batch counts."""

from __future__ import annotations

from typing import Literal

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.reduce import ReduceParams
from planformat.datatypes import DataType

OPERATIONS = ("ArgMax", "ArgMin", "Reduce")
_FUNCS = ("sum", "prod", "max", "min", "mean")


def convert(view: NodeView) -> Value:
    """`keepdims` is honoured; indices are INT32, as TensorRT's."""
    view.require_inputs(1)
    (value,) = view.values
    if view.node.operation != "Reduce":
        axis = view.axis(view.integer("axis", 0), value.rank)
        op: Literal["max", "min"] = "max" if view.node.operation == "ArgMax" else "min"
        params = ArgReduceParams(op, value.axes[axis], keep_dims=False)
        found = view.add("arg_reduce", params, [value.tensor])
        return Value(view.add("cast", CastParams(DataType.INT32), [found]), _without(value, {axis}))
    func = view.text("func")
    if func not in _FUNCS:
        raise NodeProblem(f"func is '{func}', must be one of {', '.join(_FUNCS)}")
    stated = view.integers("axes", None)
    axes = {view.axis(axis, value.rank) for axis in stated}
    keep = view.flag("keepdims")
    dims = tuple(sorted(value.axes[axis] for axis in axes))
    result = view.add("reduce", ReduceParams(func, dims, keep), [value.tensor])
    return Value(result, value.axes if keep else _without(value, axes))


def _without(value: Value, axes: set[int]) -> tuple[int, ...]:
    """Dimensions of the axes that are left, renumbered."""
    kept = [dim for axis, dim in enumerate(value.axes) if axis not in axes]
    places = {dim: place for place, dim in enumerate(sorted(kept))}
    return tuple(places[dim] for dim in kept)
