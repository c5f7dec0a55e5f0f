"""Transpose: the axes of the file's tensor in another order; no element moves yet."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem

OPERATIONS = ("Transpose",)


def convert(view: NodeView) -> Value:
    """Axis `i` of the result is axis `permutation[i]` of the input."""
    view.require_inputs(1, 2)
    (value, *rest) = view.values
    stated = view.integer_list(1, "the permutation") if rest else view.integers("permutation", None)
    permutation = tuple(view.axis(axis, value.rank, "permutation") for axis in stated)
    if sorted(permutation) != list(range(value.rank)):
        raise NodeProblem(f"permutation {stated} does not name {value.rank} axes once each")
    return Value(value.tensor, tuple(value.axes[axis] for axis in permutation))
