"""Base of the layer kinds whose output is a scalar expression of numpy-broadcast inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import (
    BOOLEAN_OPS,
    Binary,
    Const,
    Expr,
    Select,
    Unary,
    children,
    evaluate,
)
from builder_host.network.rules import require_broadcast
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


class PointwiseKind(ABC):
    """Shape rule and reference that follow from the expression alone."""

    @abstractmethod
    def expression(self, params: Any, num_inputs: int) -> Expr:
        """The expression over `Input(0)` .. `Input(num_inputs - 1)`."""

    @abstractmethod
    def infer(self, params: Any, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Output type after the checks of the kind."""

    def reference(self, params: Any, inputs: Sequence[Array]) -> list[Array]:
        """The expression evaluated in float64; integers and booleans keep their class."""
        expr = self.expression(params, len(inputs))
        shape = require_broadcast([np.shape(x) for x in inputs])
        value = evaluate_expression(expr, inputs)
        kind = "b" if is_boolean(expr) else np.asarray(inputs[self.typing_input]).dtype.kind
        return [np.broadcast_to(as_reference(value, kind), shape).copy()]

    typing_input = 0  # the input whose element type the output has


def evaluate_expression(expr: Expr, operands: Sequence[Array]) -> Array:
    """Evaluate in float64 without warnings; integer powers may have negative exponents."""
    if uses_power(expr):
        operands = [np.asarray(x, dtype=np.float64) for x in operands]
    with np.errstate(all="ignore"):
        return np.asarray(evaluate(expr, operands))


def as_reference(values: Array, kind: str) -> Array:
    """Values in the reference class of a numpy kind: bool, int64 (truncated) or float64."""
    if kind == "b":
        return np.asarray(values).astype(bool)
    if kind in "iu":
        if np.asarray(values).dtype.kind == "f":
            values = np.nan_to_num(np.trunc(values))
        with np.errstate(invalid="ignore"):  # beyond int64: whatever the conversion gives
            return np.asarray(values).astype(np.int64)
    return np.asarray(values).astype(np.float64)


def uses_power(expr: Expr) -> bool:
    """Whether `pow` occurs."""
    if isinstance(expr, Binary) and expr.op == "pow":
        return True
    return any(uses_power(child) for child in children(expr))


def is_boolean(expr: Expr) -> bool:
    """Whether the root is a comparison or logic operation, so that the result is BOOL."""
    match expr:
        case Unary(op=op) | Binary(op=op):
            return op in BOOLEAN_OPS
        case Select(a=a, b=b):
            return is_boolean(a) and is_boolean(b)
        case _:
            return False


def constant(value: float) -> Const:
    """A literal with a plain float."""
    return Const(float(value))


def result_type(
    expr: Expr, inputs: Sequence[TensorType], dtype: DataType | None = None
) -> TensorType:
    """Broadcast shape; `dtype`, else BOOL for boolean roots, else the type of input 0."""
    shape = require_broadcast([t.shape for t in inputs])
    if dtype is None:
        dtype = DataType.BOOL if is_boolean(expr) else inputs[0].dtype
    return TensorType(shape, dtype)
