"""Pointwise: any scalar expression over numpy-broadcast inputs; what fusion makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Expr, inputs_of
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.pointwise_kind import PointwiseKind, as_reference, evaluate_expression
from builder_host.network.rules import require, require_broadcast
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PointwiseParams:
    """The expression, and the output's element type (default: that of input 0)."""

    expr: Expr
    dtype: DataType | None = None


class Pointwise(PointwiseKind):
    """One or more inputs -> expr(inputs), of their broadcast shape."""

    kind = "pointwise"
    params_type = PointwiseParams

    def expression(self, params: PointwiseParams, num_inputs: int) -> Expr:
        """The expression itself."""
        del num_inputs
        return params.expr

    def infer(self, params: PointwiseParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the expression reads only inputs that exist."""
        require(len(inputs) >= 1, "takes at least one input")
        last = max(inputs_of(params.expr), default=0)
        require(last < len(inputs), f"the expression reads input {last} of {len(inputs)} inputs")
        shape = require_broadcast([t.shape for t in inputs])
        return [TensorType(shape, params.dtype or inputs[0].dtype)]

    def reference(self, params: PointwiseParams, inputs: Sequence[Array]) -> list[Array]:
        """The expression in float64, in the class of the output type."""
        shape = require_broadcast([np.shape(x) for x in inputs])
        if params.dtype is None:
            kind = np.asarray(inputs[0]).dtype.kind
        elif params.dtype is DataType.BOOL:
            kind = "b"
        else:
            kind = "f" if params.dtype.is_float else "i"
        value = as_reference(evaluate_expression(params.expr, inputs), kind)
        return [np.broadcast_to(value, shape).copy()]


DEFINITION: PointwiseDefinition = Pointwise()
