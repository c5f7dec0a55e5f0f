"""Epilogue operands of the hot CPU families: which are supported, how they are packed and loaded.

An operand is either *full* (the output's shape and format, own strides: a residual) or a constant
*channel* vector (broadcast over everything but the channel axis). Templates have the parameters
`EPILOGUE_LOADS` (declarations of `x1`, `x2` ...) and `EPILOGUE_EXPR` (a C expression over
`x0`, `x1` ...) and place both where a result vector `x0` is about to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen.c_expression import print_c
from builder_host.expressions import Binary, Input, substitute
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

Array = npt.NDArray[Any]


def operand_kind(operand: Layout, is_constant: bool, output: Layout, axis: int) -> str | None:
    """`full`, `channel`, or None when no hot family can read the operand.

    Args:
        operand: layout of the epilogue operand.
        is_constant: whether its values are known at build time.
        output: layout of the layer's first output.
        axis: the output's channel axis.
    """
    if operand.dtype is not DataType.FLOAT32:
        return None
    if is_constant:
        shape = (1,) * (len(output.shape) - len(operand.shape)) + operand.shape
        others = [extent for dim, extent in enumerate(shape) if dim != axis]
        if len(shape) == len(output.shape) and all(extent == 1 for extent in others):
            return "channel" if shape[axis] in (1, output.shape[axis]) else None
    if operand.shape == output.shape and operand.format is output.format:
        return "full"
    return None


def operands_apply(problem: Problem, axis: int) -> bool:
    """Whether every operand of the problem's epilogue is full or a channel vector."""
    own = problem.num_own_inputs
    output = problem.outputs[0]
    return all(
        operand_kind(operand, constant, output, axis) is not None
        for operand, constant in zip(problem.inputs[own:], problem.is_constant[own:], strict=True)
    )


def epilogue_parameters(
    problem: Problem,
    axis: int,
    *,
    channel: str,
    full_offset: Callable[[Layout], str],
    count: str | None = None,
) -> dict[str, int | str]:
    """Template parameters `EPILOGUE_LOADS` and `EPILOGUE_EXPR`.

    Args:
        problem: the problem; `operands_apply` holds.
        axis: the output's channel axis.
        channel: C expression of the channel in lane 0 of the result vector.
        full_offset: C expression of an element offset for lane 0, given an operand's layout.
        count: C expression of the number of lanes that exist, where full operands end inside a
            vector; None when whole vectors can be read. Channel vectors are padded by `pack`.
    """
    if problem.epilogue is None:
        return {"EPILOGUE_LOADS": "(void)0", "EPILOGUE_EXPR": "x0"}
    own = problem.num_own_inputs
    loads = []
    for number in range(problem.epilogue.num_operands):
        operand, constant = problem.inputs[own + number], problem.is_constant[own + number]
        base = f"(const float *)args[{own + number}]"
        if operand_kind(operand, constant, problem.outputs[0], axis) == "channel":
            loads.append(f"const vf x{number + 1} = ep_load({base} + ({channel}))")
        elif count is None:
            loads.append(f"const vf x{number + 1} = ep_load({base} + ({full_offset(operand)}))")
        else:
            loads.append(
                f"const vf x{number + 1} = ep_load_n({base} + ({full_offset(operand)}), {count})"
            )
    names = [f"x{number}" for number in range(problem.epilogue.num_operands + 1)]
    return {
        "EPILOGUE_LOADS": "; ".join(loads) or "(void)0",
        "EPILOGUE_EXPR": print_c(problem.epilogue.expr, names, vector=True),
    }


def pack_operands(
    problem: Problem, axis: int, constants: Sequence[Array | None], multiple: int
) -> list[Array | None]:
    """Packed constants of the epilogue's operands, None for those read at run time.

    Args:
        problem: the problem; `operands_apply` holds.
        axis: the output's channel axis.
        constants: values per input of the problem.
        multiple: channel vectors are padded with zeros to a multiple of this many elements.
    """
    own = problem.num_own_inputs
    output = problem.outputs[0]
    packed: list[Array | None] = []
    for number in range(own, len(problem.inputs)):
        values = constants[number]
        if values is None:
            packed.append(None)
        elif operand_kind(problem.inputs[number], True, output, axis) == "channel":
            extent = output.shape[axis]
            vector = np.zeros(-(-extent // multiple) * multiple, np.float32)
            vector[:extent] = np.broadcast_to(values.reshape(-1), (extent,))
            packed.append(vector)
        else:
            packed.append(pack_layout(values, problem.inputs[number]))
    return packed


def pack_layout(values: Array, layout: Layout) -> Array:
    """Elements as the layout stores them; gaps and padded lanes are zero.

    Args:
        values: array of the layout's logical shape.
        layout: LINEAR or blocked, any non-negative strides.

    Returns:
        Flat array of `layout.stored_elems` elements of the values' dtype.
    """
    block = layout.format.channel_block
    logical = values
    if layout.format is not TensorFormat.LINEAR and block > 1:
        n, c, h, w = layout.shape
        blocks = -(-c // block)
        padded = np.zeros((n, blocks * block, h, w), values.dtype)
        padded[:, :c] = values
        logical = padded.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2)
        strides: tuple[int, ...] = (*layout.strides, 1)
    else:
        strides = layout.strides
    flat = np.zeros(layout.stored_elems, values.dtype)
    view = np.lib.stride_tricks.as_strided(
        flat, logical.shape, tuple(stride * values.dtype.itemsize for stride in strides)
    )
    view[...] = logical
    return flat


def with_bias_as_operand(problem: Problem, num_own: int, axis: int) -> Problem:
    """The same problem with an optional last own input, the bias, as first epilogue operand.

    Args:
        problem: a layer whose own inputs are `num_own`, or those and a bias of shape [K].
        num_own: own inputs without the bias.
        axis: the output's channel axis, which the bias belongs to.
    """
    if problem.num_own_inputs == num_own:
        return problem
    count = problem.epilogue.num_operands if problem.epilogue else 0
    biased = Binary("add", Input(0), Input(1))
    expr = problem.epilogue.expr if problem.epilogue else Input(0)
    expr = substitute(expr, [biased, *(Input(i + 2) for i in range(count))])
    bias = problem.inputs[num_own]
    trailing = (1,) * (len(problem.outputs[0].shape) - 1 - axis)
    aligned = dense_layout(TensorType((*bias.shape, *trailing), bias.dtype))
    inputs = (*problem.inputs[:num_own], aligned, *problem.inputs[num_own + 1 :])
    return replace(problem, inputs=inputs, epilogue=Epilogue(expr, count + 1))


def stride_parameters(prefix: str, layout: Layout) -> dict[str, int | str]:
    """Template parameters `<prefix>_STRIDE_N`, `_C` (channel block), `_H`, `_W` in elements."""
    return {
        f"{prefix}_STRIDE_{axis}": stride
        for axis, stride in zip("NCHW", layout.strides, strict=True)
    }


def pixel_offset(layout: Layout) -> str:
    """C expression of a blocked operand's offset at `n`, `cb`, `oh`, `ow` (all int64_t)."""
    n, c, h, w = layout.strides
    return f"n * {n} + cb * {c} + oh * {h} + ow * {w}"
