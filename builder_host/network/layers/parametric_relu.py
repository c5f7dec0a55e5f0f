"""Parametric ReLU: a slope tensor for negative elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import Expr, Input, leaky_relu
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind
from builder_host.network.rules import (
    require_broadcastable_to,
    require_num_inputs,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class ParametricReluParams:
    """No parameters."""


class ParametricRelu(PointwiseKind):
    """x, slope (broadcastable to x) -> x >= 0 ? x : slope * x."""

    kind = "parametric_relu"
    params_type = ParametricReluParams

    def expression(self, params: ParametricReluParams, num_inputs: int) -> Expr:
        """A select on the sign."""
        del params, num_inputs
        return leaky_relu(Input(0), Input(1))

    def infer(self, params: ParametricReluParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the slope broadcasts to x."""
        del params
        require_num_inputs(inputs, 2)
        require_same_dtype(inputs)
        require_broadcastable_to(inputs[1].shape, inputs[0].shape, "slope")
        return [inputs[0]]


DEFINITION: PointwiseDefinition = ParametricRelu()
