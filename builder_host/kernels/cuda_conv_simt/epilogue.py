"""Epilogue of the CUDA convolution families: parameters of the templates, packed constants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from builder_host.codegen.cuda_expression import print_cuda
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, c_type
from builder_host.kernels.family import Array, Problem

CONVOLUTION_SOURCE = Path(__file__).with_name("convolution.cuh").read_text()
_INCLUDE = '#include "convolution.cuh"\n'


def with_convolution(template: str) -> str:
    """The template with its line `#include "convolution.cuh"` replaced by that file's text."""
    before, include, after = template.partition(_INCLUDE)
    if not include:
        raise ValueError(f"the template has no line {_INCLUDE.strip()}")
    return before + CONVOLUTION_SOURCE + after


def epilogue_parameters(conv: Convolution) -> dict[str, int | str]:
    """OPERAND_PARAMETERS, OPERAND_NAMES, OPERAND_LOADS, OPERAND_SCALARS and EPILOGUE."""
    parameters, names, loads, scalars = "", "", [], []
    for number, operand in enumerate(conv.operands, start=1):
        names += f", p{number}"
        loads.append(f"float v{number}[count];")
        scalars.append(f"const float x{number} = v{number}[i];")
        if operand.is_channel:
            parameters += f", const float *p{number}"
            # Padded to whole tiles; a group starts where a multiple of four does.
            loads.append(f"load_channels<count, 4, 1, false>(v{number}, p{number} + slot, count);")
            continue
        n, c, h, w = operand.strides
        parameters += f", const {c_type(operand.dtype)} *p{number}"
        loads.append(
            f"load_channels<count, {operand.vector}, {c}, {str(operand.is_view).lower()}>"
            f"(v{number}, p{number} + at.n * {n} + at.oh * {h} + at.ow * {w} + k * {c}, limit);"
        )
    epilogue = conv.problem.epilogue
    inputs = [f"x{number}" for number in range(len(conv.operands) + 1)]
    return {
        "OPERAND_PARAMETERS": parameters,
        "OPERAND_NAMES": names,
        "OPERAND_LOADS": "\n".join(loads),
        "OPERAND_SCALARS": " ".join(scalars),
        "EPILOGUE": print_cuda(epilogue.expr, inputs, is_exact=conv.is_integer)
        if epilogue
        else "x0",
    }


def staged_operands(conv: Convolution, filters: int) -> tuple[str, int]:
    """Channel vectors in shared memory, fetched before the wait for earlier kernels.

    Args:
        conv: the convolution.
        filters: of a block, a multiple of 4 and at most 4 per thread.

    Returns:
        Statements that fetch them to `operands` and let their pointers point there, given the
        `first_slot` of the block; and the bytes that they take.
    """
    channels = [n for n, operand in enumerate(conv.operands, start=1) if operand.is_channel]
    text = " ".join(
        f"p{number} = stage_channels<{filters}>(p{number}, operands + {place * filters}, "
        "first_slot);"
        for place, number in enumerate(channels)
    )
    return text, 4 * filters * len(channels)


def pack_operands(
    conv: Convolution, constants: Sequence[Array | None], padded: int
) -> list[Array | None]:
    """Packed constants of everything after x and the weights.

    Args:
        conv: the convolution.
        constants: values per input of the problem.
        padded: floats that a group takes in a channel vector, a multiple of four.
    """
    packed: list[Array | None] = []
    for operand, values in zip(conv.operands, constants[2:], strict=True):
        if values is None:
            packed.append(None)
        elif operand.is_channel:
            every = np.broadcast_to(values.reshape(-1), (conv.filters,))
            vector = np.zeros((conv.groups, padded), np.float32)
            vector[:, : conv.group_filters] = every.reshape(conv.groups, -1)
            packed.append(vector.reshape(-1))
        else:
            packed.append(np.ascontiguousarray(values))
    return packed


def grouped_weights(problem: Problem, conv: Convolution, weights: Array) -> Array:
    """Weights as `[groups, filters per group, taps, channels per group]`."""
    shape = (conv.groups, conv.group_filters, conv.group_channels, conv.num_taps)
    if problem.kind == "deconvolution":
        split = weights.reshape(conv.groups, conv.group_channels, conv.group_filters, conv.num_taps)
        return split.transpose(0, 2, 3, 1)
    return weights.reshape(shape).transpose(0, 1, 3, 2)
