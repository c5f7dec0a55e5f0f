"""Text dump of a network: one line per layer, for traces and messages."""

from __future__ import annotations

from builder_host.expressions import text as expression_text
from builder_host.network.network import Layer, Network, Tensor


def describe(network: Network) -> str:
    """Inputs, layers in order with parameters, types and epilogue, then outputs.

    Equal networks give equal text; values of constants are not shown.
    """
    lines = [f"network {network.name}: {len(network.layers)} layers"]
    lines += [f"input {t.name} {t.type}" for t in network.inputs]
    lines += [describe_layer(layer) for layer in network.layers]
    lines += [f"output {t.name} {t.type}" for t in network.outputs]
    return "\n".join(lines) + "\n"


def describe_layer(layer: Layer) -> str:
    """One line: outputs = kind(inputs) parameters | epilogue  # name, origin."""
    outputs = ", ".join(f"{t.name} {t.type}" for t in layer.outputs)
    inputs = ", ".join(_operand(t) for t in layer.own_inputs)
    line = f"{outputs} = {layer.kind}({inputs}) {_params(layer)}"
    if layer.epilogue is not None:
        operands = ", ".join(_operand(t) for t in layer.operands)
        line += f" | {expression_text(layer.epilogue.expr)} with ({operands})"
    origin = f", {layer.origin}" if layer.origin else ""
    return f"{line}  # {layer.name}{origin}"


def _operand(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.type}{' const' if tensor.is_constant else ''}"


def _params(layer: Layer) -> str:
    if layer.kind == "pointwise":
        return expression_text(layer.params.expr)
    text = repr(layer.params)
    return text[text.index("(") :]
