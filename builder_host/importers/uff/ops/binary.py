"""Binary: arithmetic of two tensors that broadcast; either may be constant."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.network import Tensor

OPERATIONS = ("Binary",)
_FUNCS = ("add", "sub", "mul", "div", "min", "max", "pow")


def convert(view: NodeView) -> Value:
    """The result keeps the dimensions of the operand that has all of them."""
    view.require_inputs(2)
    func = view.text("func")
    if func not in _FUNCS:
        raise NodeProblem(f"func is '{func}', must be one of {', '.join(_FUNCS)}")
    rank = max(value.rank for value in view.values)
    full = [v for v in view.values if v.rank == rank]
    computed = [v for v in full if not v.tensor.is_constant]
    axes = (computed or full)[0].axes
    operands = [_placed(view, value, axes) for value in view.values]
    return Value(view.add("elementwise", ElementwiseParams(func), operands), axes)


def _placed(view: NodeView, value: Value, axes: tuple[int, ...]) -> Tensor:
    """The operand with leading ones, its dimensions where those of the result are."""
    rank = len(axes)
    missing = rank - value.rank
    if value.tensor.values is not None:
        array = value.tensor.values.transpose(value.axes)
        array = array.reshape((1,) * missing + array.shape)
        return view.constant(array.transpose([axes.index(dim) for dim in range(rank)]), "operand")
    if missing:
        plain = view.arranged(value, tuple(range(value.rank)))
        tensor = view.reshaped(plain, (1,) * missing + plain.shape)
        value = Value(tensor, tuple(range(rank)))
    return view.arranged(value, axes)
