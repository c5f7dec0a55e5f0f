"""ELU, Sigmoid, TanH, BNLL, AbsVal, Swish, Clip: functions without weights."""

from __future__ import annotations

from typing import Any

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.activation import ActivationParams

TYPES = ("BNLL", "Clip", "ELU", "Sigmoid", "Swish", "TanH")


def convert(layer: CaffeLayer) -> None:
    """One activation; BNLL is ln(1 + exp(x))."""
    layer.emit("activation", _params(layer.message), [layer.bottom])


def _params(message: Any) -> ActivationParams:
    match message.type:
        case "ELU":
            return ActivationParams("elu", message.elu_param.alpha)
        case "Swish":
            return ActivationParams("swish", message.swish_param.beta)
        case "Clip":
            param = message.clip_param
            if not (param.HasField("min") and param.HasField("max")):
                raise LayerProblem("clip_param needs both min and max")
            return ActivationParams("clip", param.min, param.max)
        case "BNLL":
            return ActivationParams("softplus", 1.0, 1.0)
        case name:
            return ActivationParams({"Sigmoid": "sigmoid", "TanH": "tanh"}[name])
