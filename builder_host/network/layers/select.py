"""Select: one of two tensors by a condition, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import Expr, Input
from builder_host.expressions import Select as SelectExpr
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind
from builder_host.network.rules import require_broadcast, require_num_inputs, require_same_dtype
from builder_host.network.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class SelectParams:
    """No parameters."""


class Select(PointwiseKind):
    """condition, a, b (numpy-broadcast) -> condition != 0 ? a : b."""

    kind = "select"
    params_type = SelectParams
    typing_input = 1

    def expression(self, params: SelectParams, num_inputs: int) -> Expr:
        """One select node."""
        del params, num_inputs
        return SelectExpr(Input(0), Input(1), Input(2))

    def infer(self, params: SelectParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check types of both sides and the broadcast."""
        del params
        require_num_inputs(inputs, 3)
        require_same_dtype(inputs[1:])
        return [TensorType(require_broadcast([t.shape for t in inputs]), inputs[1].dtype)]


DEFINITION: PointwiseDefinition = Select()
