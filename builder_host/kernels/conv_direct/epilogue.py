"""Bias and epilogue of the convolution families: parameters, source text, packed operands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from builder_host.codegen.c_expression import print_c
from builder_host.kernels.conv_direct.geometry import MAX_OPERANDS, Convolution
from builder_host.kernels.family import Array, Problem

EPILOGUE_SOURCE = Path(__file__).with_name("epilogue.h").read_text()
_INCLUDE = '#include "epilogue.h"\n'


def with_epilogue(template: str) -> str:
    """The template with its line `#include "epilogue.h"` replaced by that file's text."""
    before, include, after = template.partition(_INCLUDE)
    if not include:
        raise ValueError(f"the template has no line {_INCLUDE.strip()}")
    return before + EPILOGUE_SOURCE + after


def epilogue_parameters(problem: Problem, conv: Convolution) -> dict[str, int | str]:
    """NUM_OPERANDS, OPERANDi_STRIDES and EPILOGUE for a kernel over whole vectors."""
    names = [f"x{i}" for i in range(MAX_OPERANDS + 1)]
    expr = problem.epilogue.expr if problem.epilogue else None
    parameters: dict[str, int | str] = {
        "NUM_OPERANDS": len(conv.operand_strides),
        "EPILOGUE": print_c(expr, names, vector=True) if expr is not None else "x0",
    }
    for i in range(MAX_OPERANDS):
        strides = conv.operand_strides[i] if i < len(conv.operand_strides) else (0, 0, 0, 0)
        parameters[f"OPERAND{i + 1}_STRIDES"] = ", ".join(map(str, strides))
    return parameters


def pack_channels(values: Array, filters: int, padded: int) -> Array:
    """A per-channel or scalar constant as `padded` floats; lanes past `filters` are zero."""
    packed = np.zeros(padded, dtype=np.float32)
    packed[:filters] = np.broadcast_to(np.asarray(values, dtype=np.float32).reshape(-1), (filters,))
    return packed


def pack_rest(
    problem: Problem, conv: Convolution, constants: Sequence[Array | None]
) -> list[Array | None]:
    """Packed bias and epilogue constants: everything after x and the weights."""
    padded = conv.out_blocks * conv.lanes
    return [
        None if values is None else pack_channels(values, conv.filters, padded)
        for values in constants[2 : len(problem.inputs)]
    ]
