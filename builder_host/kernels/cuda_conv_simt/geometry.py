"""Convolutions and deconvolutions as the CUDA families see them.

A family never looks at a problem's layouts by itself: what it may rely on is what
`convolution_of` has checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder_host.codegen.template import parameter_names
from builder_host.codegen.value_range import fits
from builder_host.kernels.family import Problem
from builder_host.kernels.store_epilogue import with_bias_as_operand
from builder_host.layouts import Layout, dense_layout
from builder_host.network.rules import EIGHT_BITS
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType, TensorFormat

MAX_OPERANDS = 6
_MAX_ELEMS = 2**31 - 1  # kernels index with 32 bits
_FORMATS = (TensorFormat.NHWC, TensorFormat.LINEAR)
_STORAGE = (DataType.FLOAT16, DataType.FLOAT32)
_LARGEST = {DataType.INT8: 128, DataType.UINT8: 255}
_C_TYPES = {
    DataType.FLOAT16: "half",
    DataType.FLOAT32: "float",
    DataType.INT8: "ep_i8",
    DataType.UINT8: "ep_u8",
}

Strides = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of the epilogue; the bias is the first one.

    Attributes:
        is_channel: a constant that varies with the channel only, packed as a vector of floats.
        dtype: element type of what is not a channel vector.
        strides: in elements, logical order (n, c, h, w), 0 where broadcast.
        vector: channels that lie together and aligned, 1 when they do not.
        is_view: part of a larger tensor, whose first element may lie anywhere.
    """

    is_channel: bool
    dtype: DataType
    strides: Strides
    vector: int
    is_view: bool


@dataclass(frozen=True, slots=True)
class Convolution:
    """A two-dimensional convolution, or a deconvolution (`is_transposed`).

    Attributes:
        problem: with the bias as the epilogue's first operand.
        x_strides, y_strides: in elements, logical order (n, c, h, w).
        x_vector, y_vector: channels that lie together and aligned, at most 16 bytes.
        x_is_view, y_is_view: part of a larger tensor, whose first element may lie anywhere.
    """

    problem: Problem
    is_transposed: bool
    batch: int
    channels: int
    filters: int
    groups: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    x_dtype: DataType
    w_dtype: DataType
    y_dtype: DataType
    x_strides: Strides
    y_strides: Strides
    x_vector: int
    y_vector: int
    x_is_view: bool
    y_is_view: bool
    operands: tuple[Operand, ...]

    @property
    def group_channels(self) -> int:
        """Input channels of one group."""
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        """Output channels of one group."""
        return self.filters // self.groups

    @property
    def num_taps(self) -> int:
        """Kernel rows times kernel columns."""
        return self.kernel_h * self.kernel_w

    @property
    def pixels(self) -> int:
        """Output positions of the whole batch."""
        return self.batch * self.out_h * self.out_w

    @property
    def is_integer(self) -> bool:
        """Whether x holds 8-bit integers; the epilogue is then computed exactly as written."""
        return self.x_dtype in EIGHT_BITS

    @property
    def num_terms(self) -> int:
        """Products of one output."""
        return self.num_taps * self.group_channels

    @property
    def products(self) -> float:
        """Multiplications without regard to borders."""
        share = self.stride_h * self.stride_w if self.is_transposed else 1
        return float(self.pixels) * self.filters * self.group_channels * self.num_taps / share

    @property
    def moved_bytes(self) -> float:
        """Input, weights, output and full operands, each once."""
        image = self.batch * self.channels * self.in_h * self.in_w
        weights = self.filters * self.group_channels * self.num_taps
        full = 1 + sum(not operand.is_channel for operand in self.operands)
        return float(
            image * self.x_dtype.size_bytes
            + weights * self.w_dtype.size_bytes
            + self.pixels * self.filters * self.y_dtype.size_bytes * full
        )

    def parameters_of(self, template: str) -> dict[str, int | str]:
        """Values of those extents and strides that are parameters of a template."""
        names = ("N", "C", "H", "W")
        known = parameter_names(template)
        values: dict[str, int | str] = {
            "BATCH": self.batch,
            "CHANNELS": self.channels,
            "FILTERS": self.filters,
            "GROUPS": self.groups,
            "GROUP_CHANNELS": self.group_channels,
            "GROUP_FILTERS": self.group_filters,
            "IN_H": self.in_h,
            "IN_W": self.in_w,
            "OUT_H": self.out_h,
            "OUT_W": self.out_w,
            "PIXELS": self.pixels,
            "KERNEL_H": self.kernel_h,
            "KERNEL_W": self.kernel_w,
            "STRIDE_H": self.stride_h,
            "STRIDE_W": self.stride_w,
            "PAD_TOP": self.pad_top,
            "PAD_LEFT": self.pad_left,
            "DILATION_H": self.dilation_h,
            "DILATION_W": self.dilation_w,
            "IS_TRANSPOSED": int(self.is_transposed),
            "X_TYPE": c_type(self.x_dtype),
            "X_IS_SIGNED": int(self.x_dtype is not DataType.UINT8),
            "Y_TYPE": c_type(self.y_dtype),
            "X_VECTOR": self.x_vector,
            "Y_VECTOR": self.y_vector,
            "X_IS_VIEW": int(self.x_is_view),
            "Y_IS_VIEW": int(self.y_is_view),
            **{f"X_{a}": s for a, s in zip(names, self.x_strides, strict=True)},
            **{f"Y_{a}": s for a, s in zip(names, self.y_strides, strict=True)},
        }
        return {name: value for name, value in values.items() if name in known}


def c_type(dtype: DataType) -> str:
    """Storage type in CUDA C++."""
    return _C_TYPES[dtype]


def convolution_of(
    problem: Problem,
    target: Any,
    *,
    spans_groups: bool = False,
    converts_x: bool = False,
    integers: bool = False,
) -> Convolution | None:
    """The problem as a `Convolution`, or None when no CUDA family can compute it.

    Args:
        problem: any problem.
        target: any target.
        spans_groups: vectors of channels may hold several groups, for depthwise kernels.
        converts_x: x may have another type than the weights.
        integers: x has 8 bits and the weights are INT8, instead of fp16 or fp32 (see
            `integer_types_apply`).

    Needs a CUDA target, rank 4, NHWC or row-major order, constant weights and bias, and epilogue
    operands that broadcast to the output.
    """
    if problem.kind not in ("convolution", "deconvolution") or not isinstance(target, CudaTarget):
        return None
    own, (y, *rest) = problem.num_own_inputs, problem.outputs
    if rest or own not in (2, 3) or not all(problem.is_constant[1:own]) or problem.is_constant[0]:
        return None
    x, weights = problem.inputs[0], problem.inputs[1]
    if len(x.shape) != 4 or 0 in (*x.shape, *y.shape):
        return None
    if any(t.format not in _FORMATS for t in (*problem.inputs, y)):
        return None
    if max(x.stored_elems, y.stored_elems) > _MAX_ELEMS:
        return None
    if integers:
        types_apply = problem.kind == "convolution" and integer_types_apply(problem)
    else:
        types_apply = all(t.dtype in _STORAGE for t in (*problem.inputs, y))
        types_apply = types_apply and (converts_x or x.dtype is weights.dtype)
    if not types_apply:
        return None
    canonical = with_bias_as_operand(problem, 2, 1)
    params = problem.params
    together = 1 if spans_groups else params.groups
    operands: list[Operand] = []
    for layout, constant in zip(canonical.inputs[2:], canonical.is_constant[2:], strict=True):
        operand = _operand(layout, constant, y, y.shape[1] // together)
        if operand is None:
            return None
        operands.append(operand)
    if len(operands) > MAX_OPERANDS:
        return None
    return Convolution(
        problem=canonical,
        is_transposed=problem.kind == "deconvolution",
        batch=x.shape[0],
        channels=x.shape[1],
        filters=y.shape[1],
        groups=params.groups,
        in_h=x.shape[2],
        in_w=x.shape[3],
        out_h=y.shape[2],
        out_w=y.shape[3],
        kernel_h=weights.shape[2],
        kernel_w=weights.shape[3],
        stride_h=params.strides[0],
        stride_w=params.strides[1],
        pad_top=params.pads_begin[0],
        pad_left=params.pads_begin[1],
        dilation_h=params.dilations[0],
        dilation_w=params.dilations[1],
        x_dtype=x.dtype,
        w_dtype=weights.dtype,
        y_dtype=y.dtype,
        x_strides=_four(x.strides),
        y_strides=_four(y.strides),
        x_vector=_vector(x.shape, _four(x.strides), x.dtype, x.shape[1] // together),
        y_vector=_vector(y.shape, _four(y.strides), y.dtype, y.shape[1] // together),
        x_is_view=not x.is_dense,
        y_is_view=not y.is_dense,
        operands=tuple(operands),
    )


def integer_types_apply(problem: Problem) -> bool:
    """Whether a product of 8-bit tensors can be computed with exact int32 sums.

    8-bit x, constant INT8 weights and no bias (a sum of integers has its bias in the epilogue),
    sums that fit int32, a float result or one that is clipped to its 8 bits, operands of the
    epilogue in float, or in 8 bits where they are no constants.
    """
    if problem.num_own_inputs != 2 or not problem.is_constant[1]:
        return False
    x, weights, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    if x.dtype not in EIGHT_BITS or weights.dtype is not DataType.INT8:
        return False
    num_outputs = y.shape[1] if problem.kind == "convolution" else y.shape[-1]
    terms = math.prod(weights.shape) // max(num_outputs, 1)
    if terms * _LARGEST[x.dtype] * 128 >= 2**31:
        return False
    for layout, constant in zip(problem.inputs[2:], problem.is_constant[2:], strict=True):
        if layout.dtype not in _STORAGE and (constant or layout.dtype not in EIGHT_BITS):
            return False
    if y.dtype in _STORAGE:
        return True
    return problem.epilogue is not None and fits(problem.epilogue.expr, y.dtype)


def _four(strides: Sequence[int]) -> Strides:
    n, c, h, w = strides
    return (n, c, h, w)


def _vector(shape: Sequence[int], strides: Strides, dtype: DataType, group: int) -> int:
    """Channels of one aligned access; a group's channels are a multiple of it."""
    if strides[1] != 1 and shape[1] != 1:
        return 1
    others = [s for axis, s in enumerate(strides) if axis != 1 and shape[axis] > 1]
    return math.gcd(16 // dtype.size_bytes, group, *others)


def _operand(layout: Layout, constant: bool, y: Layout, group_filters: int) -> Operand | None:
    """An epilogue operand, or None when it does not broadcast to the output."""
    missing = len(y.shape) - len(layout.shape)
    if missing < 0:
        return None
    shape = (1,) * missing + layout.shape
    if any(extent not in (1, full) for extent, full in zip(shape, y.shape, strict=True)):
        return None
    if constant and all(extent == 1 for axis, extent in enumerate(shape) if axis != 1):
        return Operand(True, DataType.FLOAT32, (0, 1, 0, 0), 1, False)
    stored = dense_layout(layout.type).strides if constant else layout.strides
    strides = _four([0] * missing + list(stored))
    strides = _four([s if shape[axis] > 1 else 0 for axis, s in enumerate(strides)])
    vector = 1
    if shape[1] == y.shape[1]:
        vector = _vector(shape, strides, layout.dtype, group_filters)
    return Operand(False, layout.dtype, strides, vector, not constant and not layout.is_dense)
