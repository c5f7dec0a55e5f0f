"""Elementwise: one binary operation on two numpy-broadcast tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import BINARY_OPS, INTEGER_OPS, Binary, Expr, Input
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind, result_type
from builder_host.network.rules import require, require_num_inputs, require_same_dtype
from builder_host.network.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class ElementwiseParams:
    """One of expressions.BINARY_OPS or INTEGER_OPS; `div` of integers truncates."""

    op: str


class Elementwise(PointwiseKind):
    """a, b -> op(a, b); comparisons and logic give BOOL."""

    kind = "elementwise"
    params_type = ElementwiseParams

    def expression(self, params: ElementwiseParams, num_inputs: int) -> Expr:
        """One binary node."""
        del num_inputs
        return Binary(params.op, Input(0), Input(1))

    def infer(self, params: ElementwiseParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the operation, element types and the broadcast."""
        require_num_inputs(inputs, 2)
        known = {**BINARY_OPS, **INTEGER_OPS}
        require(params.op in known, f"op '{params.op}' is not one of {', '.join(known)}")
        require(
            params.op in BINARY_OPS or not any(t.dtype.is_float for t in inputs),
            f"op '{params.op}' works on the bits of integers, got {', '.join(map(str, inputs))}",
        )
        require_same_dtype(inputs)
        return [result_type(self.expression(params, 2), inputs)]


DEFINITION: PointwiseDefinition = Elementwise()
