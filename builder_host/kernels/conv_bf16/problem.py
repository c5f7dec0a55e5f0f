"""Convolutions and products of bfloat16 tensors: which problems the kernels take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builder_host.kernels.conv_direct.geometry import Convolution, convolution_of
from builder_host.kernels.conv_direct.tiling import is_mixed
from builder_host.kernels.conv_int8.problem import as_float32
from builder_host.kernels.family import Problem
from builder_host.kernels.gemm_int8.product import KINDS, product_of
from builder_host.kernels.store_epilogue import with_bias_as_operand
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType

_BF16 = DataType.BFLOAT16
_STORED = (_BF16, DataType.FLOAT32)


def bf16_convolution_of(problem: Problem, target: Any) -> tuple[Problem, Convolution] | None:
    """The problem with its bias in the epilogue, and its geometry; None when it does not apply.

    Needs a target with bfloat16 dot products, bfloat16 x and constant weights, blocked x and y, and
    epilogue operands in float32 or bfloat16. Groups that share blocks need even channels.
    """
    if problem.kind != "convolution":
        return None
    canonical = _canonical(problem, target, 1)
    if canonical is None:
        return None
    conv = convolution_of(as_float32(canonical), target)
    if conv is None or not conv.x_is_blocked or (is_mixed(conv) and conv.channels % 2):
        return None
    return canonical, conv


def bf16_product_of(problem: Problem, target: Any) -> tuple[Problem, Convolution] | None:
    """The same for a fully connected layer or a product with a constant matrix."""
    if problem.kind not in KINDS:
        return None
    canonical = _canonical(problem, target, len(problem.outputs[0].shape) - 1)
    if canonical is None:
        return None
    conv = product_of(as_float32(canonical), target, 2)
    return None if conv is None else (canonical, conv)


def _canonical(problem: Problem, target: Any, axis: int) -> Problem | None:
    """Types checked, the bias as an operand, constants in float32 as they are packed."""
    if not isinstance(target, CpuTarget) or not target.has_bf16_dot:
        return None
    if len(problem.inputs) < 2 or any(t.dtype is not _BF16 for t in problem.inputs[:2]):
        return None
    layouts = (*problem.inputs[2:], *problem.outputs)
    if any(layout.dtype not in _STORED for layout in layouts):
        return None
    if problem.num_own_inputs not in (2, 3) or not all(
        problem.is_constant[1 : problem.num_own_inputs]
    ):
        return None
    canonical = with_bias_as_operand(problem, 2, axis)
    widened = tuple(
        replace(layout, dtype=DataType.FLOAT32) if constant and number >= 2 else layout
        for number, (layout, constant) in enumerate(
            zip(canonical.inputs, canonical.is_constant, strict=True)
        )
    )
    return replace(canonical, inputs=widened)
