"""Activation functions that the activation layer has; Clip, PRelu and Shrink have own modules."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

_PLAIN = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "HardSwish": "hard_swish",
    "Mish": "mish",
}
_ALPHA = {
    "LeakyRelu": ("leaky_relu", 0.01),
    "Elu": ("elu", 1.0),
    "Celu": ("celu", 1.0),
    "ThresholdedRelu": ("thresholded_relu", 1.0),
    "Swish": ("swish", 1.0),
}
_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875


@operator("Relu", since=(1, 6, 13, 14))
def relu(node: Node) -> Tensor:
    """max(x, 0), of integers too."""
    return node.activation("relu", node.input(0))


@operator(*_PLAIN, since=(1, 6, 13, 14, 18, 22))
def plain(node: Node) -> Tensor:
    """Functions without parameters."""
    return node.activation(_PLAIN[node.op_type], node.input(0))


@operator(*_ALPHA, since=(1, 6, 10, 12, 16, 22, 24, 28))
def with_alpha(node: Node) -> Tensor:
    """Functions of one parameter."""
    function, default = _ALPHA[node.op_type]
    return node.activation(function, node.input(0), node.attr_float("alpha", default))


@operator("Selu", since=(1, 6, 22))
def selu(node: Node) -> Tensor:
    """Gamma times an ELU."""
    alpha = node.attr_float("alpha", _SELU_ALPHA)
    return node.activation("selu", node.input(0), alpha, node.attr_float("gamma", _SELU_GAMMA))


@operator("HardSigmoid", since=(1, 6, 22))
def hard_sigmoid(node: Node) -> Tensor:
    """max(0, min(1, alpha * x + beta))."""
    alpha = node.attr_float("alpha", 0.2)
    return node.activation("hard_sigmoid", node.input(0), alpha, node.attr_float("beta", 0.5))


@operator("Gelu", since=(20,))
def gelu(node: Node) -> Tensor:
    """Exact, or with the tanh approximation."""
    form = node.choice("approximate", "none", ("none", "tanh"))
    return node.activation("gelu_erf" if form == "none" else "gelu_tanh", node.input(0))
