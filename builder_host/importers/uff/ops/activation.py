"""Activation and LeakyRelu."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.activation import ActivationParams

OPERATIONS = ("Activation", "LeakyRelu")
_FUNCS = {
    "relu": ActivationParams("relu"),
    "relu6": ActivationParams("clip", 0.0, 6.0),
    "sigmoid": ActivationParams("sigmoid"),
    "tanh": ActivationParams("tanh"),
    "elu": ActivationParams("elu", 1.0),
    "selu": ActivationParams("selu"),
    "softsign": ActivationParams("softsign"),
    "softplus": ActivationParams("softplus"),
}


def convert(view: NodeView) -> Value:
    """Dimensions stay where they are."""
    view.require_inputs(1)
    (value,) = view.values
    if view.node.operation == "LeakyRelu":
        params = ActivationParams("leaky_relu", view.number("alpha"))
    else:
        func = view.text("func")
        if func not in _FUNCS:
            raise NodeProblem(f"func is '{func}', must be one of {', '.join(_FUNCS)}")
        params = _FUNCS[func]
    return Value(view.add("activation", params, [value.tensor]), value.axes)
