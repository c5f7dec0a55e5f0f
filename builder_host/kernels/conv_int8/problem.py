"""Convolutions of 8-bit tensors: which problems the kernels take, and their epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder_host.codegen.value_range import fits
from builder_host.kernels.conv_direct.geometry import Convolution, convolution_of
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout
from planformat.datatypes import DataType

EIGHT_BITS = (DataType.INT8, DataType.UINT8)
RESULTS = (*EIGHT_BITS, DataType.FLOAT32)
_LARGEST = {DataType.INT8: 128, DataType.UINT8: 255}


@dataclass(frozen=True, slots=True)
class IntegerConvolution:
    """A convolution of 8-bit tensors.

    Attributes:
        conv: its extents and strides in elements.
        x_dtype: INT8 or UINT8; y_dtype: one of these, or FLOAT32.
    """

    conv: Convolution
    x_dtype: DataType
    y_dtype: DataType

    @property
    def x_is_signed(self) -> bool:
        """Whether activations are INT8."""
        return self.x_dtype is DataType.INT8


def integer_convolution_of(problem: Problem, target: Any) -> IntegerConvolution | None:
    """The problem as the 8-bit kernels see it, or None when they cannot compute it.

    Needs 8-bit x and constant INT8 weights without bias, blocked x and y, sums that fit int32,
    epilogue operands in float (per channel) or float or 8 bits (in the output's format), and for
    8-bit results an epilogue that is clipped to their range.
    """
    if problem.kind != "convolution" or problem.num_own_inputs != 2:
        return None
    if not types_apply(problem):
        return None
    conv = convolution_of(as_float32(problem), target)
    if conv is None or not conv.x_is_blocked:
        return None
    if not sums_fit(problem.inputs[0].dtype, conv.group_channels * conv.num_taps):
        return None
    return IntegerConvolution(conv, problem.inputs[0].dtype, problem.outputs[0].dtype)


def types_apply(problem: Problem) -> bool:
    """Whether element types of inputs, operands and output are those of an 8-bit product."""
    x, weights, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    if x.dtype not in EIGHT_BITS or weights.dtype is not DataType.INT8:
        return False
    return operand_types_apply(problem) and result_fits(problem, y.dtype)


def operand_types_apply(problem: Problem) -> bool:
    """Epilogue operands: constants in float32, tensors in float32 or 8 bits."""
    own = problem.num_own_inputs
    for layout, constant in zip(problem.inputs[own:], problem.is_constant[own:], strict=True):
        if layout.dtype is not DataType.FLOAT32 and (constant or layout.dtype not in EIGHT_BITS):
            return False
    return True


def result_fits(problem: Problem, dtype: DataType) -> bool:
    """Whether the result may be stored: floats always, 8 bits when clipped to their range."""
    if dtype is DataType.FLOAT32:
        return True
    return problem.epilogue is not None and fits(problem.epilogue.expr, dtype)


def sums_fit(dtype: DataType, terms: int) -> bool:
    """Whether `terms` products with INT8 weights always fit int32."""
    return terms * _LARGEST[dtype] * 128 < 2**31


def as_float32(problem: Problem) -> Problem:
    """The same problem in float32: strides count elements, so the geometry is the same."""

    def widened(layouts: Sequence[Layout]) -> tuple[Layout, ...]:
        return tuple(replace(layout, dtype=DataType.FLOAT32) for layout in layouts)

    return replace(problem, inputs=widened(problem.inputs), outputs=widened(problem.outputs))
