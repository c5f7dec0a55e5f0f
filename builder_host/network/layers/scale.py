"""Scale: (x * scale + shift) ^ power with tensors that broadcast to x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import Binary, Expr, Input
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind
from builder_host.network.rules import (
    require_broadcastable_to,
    require_num_inputs,
    require_same_dtype,
)
from builder_host.network.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class ScaleParams:
    """Which of shift, scale and power are inputs, in this order after x."""

    has_shift: bool
    has_scale: bool
    has_power: bool


class Scale(PointwiseKind):
    """x, then shift, scale, power as present -> (x * scale + shift) ^ power."""

    kind = "scale"
    params_type = ScaleParams

    def expression(self, params: ScaleParams, num_inputs: int) -> Expr:
        """Absent parts are left out."""
        del num_inputs
        number = 1
        positions: list[int | None] = []
        for present in (params.has_shift, params.has_scale, params.has_power):
            positions.append(number if present else None)
            number += present
        shift, scale, power = positions
        value: Expr = Input(0)
        if scale is not None:
            value = Binary("mul", value, Input(scale))
        if shift is not None:
            value = Binary("add", value, Input(shift))
        if power is not None:
            value = Binary("pow", value, Input(power))
        return value

    def infer(self, params: ScaleParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the number of inputs and that all broadcast to x."""
        require_num_inputs(inputs, 1 + params.has_shift + params.has_scale + params.has_power)
        require_same_dtype(inputs)
        for number, other in enumerate(inputs[1:], start=1):
            require_broadcastable_to(other.shape, inputs[0].shape, f"input {number}")
        return [inputs[0]]


DEFINITION: PointwiseDefinition = Scale()
