"""Per-channel constants: which axis holds the channels of a layer's output, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Expr, evaluate
from builder_host.network.evaluate import constant_value
from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]


def channel_axis(layer: Layer) -> int:
    """Axis of the channels of a hot layer's output: last for matrix_multiply, else 1."""
    return layer.output.type.rank - 1 if layer.kind == "matrix_multiply" else 1


def is_per_channel(shape: tuple[int, ...], target: tuple[int, ...], axis: int) -> bool:
    """Whether a shape that broadcasts to `target` differs along `axis` only."""
    if len(shape) > len(target):
        return False
    full = (1,) * (len(target) - len(shape)) + shape
    return all(d == 1 for i, d in enumerate(full) if i != axis) and full[axis] in (1, target[axis])


def channel_values(
    expr: Expr, inputs: Sequence[Tensor], target: tuple[int, ...], axis: int
) -> Array | None:
    """Float64 values [channels] of an expression over constants that depends on the channel only.

    Inputs that the expression does not read may be anything. None when it varies otherwise.
    """
    operands = [constant_value(t) if t.is_constant else np.zeros(()) for t in inputs]
    with np.errstate(all="ignore"):
        value = np.asarray(evaluate(expr, operands), dtype=np.float64)
    if not is_per_channel(value.shape, target, axis):
        return None
    full = value.reshape((1,) * (len(target) - value.ndim) + value.shape)
    return np.broadcast_to(full.reshape(-1), (target[axis],))
