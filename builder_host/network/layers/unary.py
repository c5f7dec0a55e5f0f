"""Unary: one operation on each element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import UNARY_OPS, Expr, Input
from builder_host.expressions import Unary as UnaryExpr
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind, result_type
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class UnaryParams:
    """One of expressions.UNARY_OPS."""

    op: str


class Unary(PointwiseKind):
    """x -> op(x); not, isnan and isinf give BOOL."""

    kind = "unary"
    params_type = UnaryParams

    def expression(self, params: UnaryParams, num_inputs: int) -> Expr:
        """One unary node."""
        del num_inputs
        return UnaryExpr(params.op, Input(0))

    def infer(self, params: UnaryParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the operation."""
        require_num_inputs(inputs, 1)
        require(params.op in UNARY_OPS, f"op '{params.op}' is not one of {', '.join(UNARY_OPS)}")
        return [result_type(self.expression(params, 1), inputs)]


DEFINITION: PointwiseDefinition = Unary()
