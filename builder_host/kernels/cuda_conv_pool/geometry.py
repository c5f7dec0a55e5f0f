"""A convolution with pooling as the CUDA families see it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from builder_host.kernels.cuda_conv_simt.geometry import Convolution, convolution_of
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout
from builder_host.network.layers.pooled_convolution import is_quartered


@dataclass(frozen=True)
class PooledConvolution(Convolution):
    """A convolution of which the maximum of 2x2 windows is stored.

    Extents are those of the convolution, cut to what lies in windows; y_strides, y_vector and
    y_is_view are of the pooled output. Every operand of the epilogue is a channel vector.
    """

    @property
    def moved_bytes(self) -> float:
        """Input, weights and the pooled output, each once."""
        stored = self.pixels * self.filters * self.y_dtype.size_bytes
        return super().moved_bytes - 0.75 * stored

    def parameters_of(self, template: str) -> dict[str, int | str]:
        """The convolution's, and the extents of the output."""
        values = super().parameters_of(template)
        return values | {"POOLED_H": self.out_h // 2, "POOLED_W": self.out_w // 2}


def pooled_convolution_of(
    problem: Problem, target: Any, *, converts_x: bool = False
) -> PooledConvolution | None:
    """The problem as a `PooledConvolution`, or None when no CUDA family can compute it.

    Args:
        problem: any problem.
        target: any target.
        converts_x: x may have another type than the weights.
    """
    if problem.kind != "pooled_convolution" or len(problem.inputs[0].shape) != 4:
        return None
    if not is_quartered(problem.params, problem.inputs[0].shape, problem.inputs[1].shape):
        return None
    (y,) = problem.outputs
    n, c, h, w = y.shape
    # The strides of y say which of its accesses are aligned, whatever its extents.
    whole = Layout(y.format, (n, c, 2 * h, 2 * w), y.dtype, y.strides)
    inner = replace(
        problem, kind="convolution", params=problem.params.convolution, outputs=(whole,)
    )
    conv = convolution_of(inner, target, converts_x=converts_x)
    if conv is None or not all(operand.is_channel for operand in conv.operands):
        return None
    values = {field.name: getattr(conv, field.name) for field in fields(conv)}
    return PooledConvolution(**values | {"y_is_view": not y.is_dense})
