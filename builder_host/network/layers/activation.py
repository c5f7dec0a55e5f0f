"""Activation functions; each is a scalar expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder_host.expressions import Binary, Const, Expr, Input, Select, Unary, clip, relu
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind, constant
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

_SELU_ALPHA = 1.67326319217681884765625  # ONNX Selu
_SELU_SCALE = 1.05070102214813232421875


@dataclass(frozen=True, slots=True)
class ActivationParams:
    """One of `FUNCTIONS`; None takes the function's own default of `DEFAULTS`.

    Attributes:
        function: name.
        alpha, beta: leaky_relu x>=0 ? x : alpha*x; elu x>=0 ? x : alpha*(exp(x)-1);
            selu beta*(x>0 ? x : alpha*(exp(x)-1)); softplus alpha*ln(exp(beta*x)+1);
            clip max(alpha, min(beta, x)); hard_sigmoid max(0, min(1, alpha*x+beta));
            scaled_tanh alpha*tanh(beta*x); thresholded_relu x>alpha ? x : 0;
            swish x*sigmoid(alpha*x); affine alpha*x+beta;
            celu max(0,x)+min(0,alpha*(exp(x/alpha)-1)).
    """

    function: str
    alpha: float | None = None
    beta: float | None = None


def _exp_minus_one(x: Expr) -> Expr:
    return Binary("sub", Unary("exp", Binary("min", x, Const(0.0))), Const(1.0))


def _mul(a: Expr, b: Expr) -> Expr:
    """Product without factors of exactly one."""
    if a == Const(1.0):
        return b
    return a if b == Const(1.0) else Binary("mul", a, b)


def _elu(x: Expr, a: Const, _: Const) -> Expr:
    return Select(Binary("ge", x, Const(0.0)), x, _mul(a, _exp_minus_one(x)))


def _selu(x: Expr, a: Const, b: Const) -> Expr:
    inner = Select(Binary("gt", x, Const(0.0)), x, _mul(a, _exp_minus_one(x)))
    return _mul(b, inner)


def _celu(x: Expr, a: Const, _: Const) -> Expr:
    scaled = x if a.value == 1.0 else Binary("div", x, a)
    return Select(Binary("ge", x, Const(0.0)), x, _mul(a, _exp_minus_one(scaled)))


def _hard_sigmoid(x: Expr, a: Const, b: Const) -> Expr:
    return clip(Binary("add", _mul(x, a), b), 0.0, 1.0)


def _gelu_tanh(x: Expr, _a: Const, _b: Const) -> Expr:
    cube = Binary("mul", Binary("mul", x, x), x)
    inner = Binary("add", x, Binary("mul", Const(0.044715), cube))
    tanh = Unary("tanh", Binary("mul", Const(math.sqrt(2.0 / math.pi)), inner))
    return Binary("mul", Binary("mul", Const(0.5), x), Binary("add", Const(1.0), tanh))


def _gelu_erf(x: Expr, _a: Const, _b: Const) -> Expr:
    erf = Unary("erf", Binary("mul", x, Const(math.sqrt(0.5))))
    return Binary("mul", Binary("mul", Const(0.5), x), Binary("add", Const(1.0), erf))


FUNCTIONS: dict[str, Callable[[Expr, Const, Const], Expr]] = {
    "relu": lambda x, _a, _b: relu(x),
    "sigmoid": lambda x, _a, _b: Unary("sigmoid", x),
    "tanh": lambda x, _a, _b: Unary("tanh", x),
    "leaky_relu": lambda x, a, _: Select(Binary("ge", x, Const(0.0)), x, Binary("mul", x, a)),
    "elu": _elu,
    "selu": _selu,
    "softsign": lambda x, _a, _b: Binary("div", x, Binary("add", Const(1.0), Unary("abs", x))),
    "softplus": lambda x, a, b: _mul(a, Unary("softplus", _mul(b, x))),
    "clip": lambda x, a, b: clip(x, a.value, b.value),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda x, _a, _b: Binary(
        "mul", x, _hard_sigmoid(x, Const(1.0 / 6.0), Const(0.5))
    ),
    "scaled_tanh": lambda x, a, b: _mul(a, Unary("tanh", _mul(b, x))),
    "thresholded_relu": lambda x, a, _: Select(Binary("gt", x, a), x, Const(0.0)),
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "swish": lambda x, a, _: Binary("mul", x, Unary("sigmoid", _mul(a, x))),
    "mish": lambda x, _a, _b: Binary("mul", x, Unary("tanh", Unary("softplus", x))),
    "celu": _celu,
    "affine": lambda x, a, b: Binary("add", _mul(a, x), b),
}
DEFAULTS: dict[str, tuple[float, float]] = {
    "leaky_relu": (0.01, 0.0),
    "elu": (1.0, 0.0),
    "selu": (_SELU_ALPHA, _SELU_SCALE),
    "softplus": (1.0, 1.0),
    "clip": (-math.inf, math.inf),
    "hard_sigmoid": (0.2, 0.5),
    "scaled_tanh": (1.0, 1.0),
    "thresholded_relu": (1.0, 0.0),
    "swish": (1.0, 0.0),
    "celu": (1.0, 0.0),
    "affine": (1.0, 0.0),
}


class Activation(PointwiseKind):
    """x -> f(x)."""

    kind = "activation"
    params_type = ActivationParams

    def expression(self, params: ActivationParams, num_inputs: int) -> Expr:
        """The function with its coefficients as literals."""
        del num_inputs
        alpha, beta = DEFAULTS.get(params.function, (0.0, 0.0))
        alpha = alpha if params.alpha is None else params.alpha
        beta = beta if params.beta is None else params.beta
        return FUNCTIONS[params.function](Input(0), constant(alpha), constant(beta))

    def infer(self, params: ActivationParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the name."""
        require_num_inputs(inputs, 1)
        require(
            params.function in FUNCTIONS,
            f"function '{params.function}' is not one of {', '.join(FUNCTIONS)}",
        )
        require(
            not (params.function == "celu" and params.alpha == 0.0), "celu needs an alpha, not 0"
        )
        return [inputs[0]]


DEFINITION: PointwiseDefinition = Activation()
