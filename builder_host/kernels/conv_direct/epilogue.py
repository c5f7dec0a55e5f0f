"""Bias and epilogue of the convolution families: parameters, source text, packed operands.

Kernels of float32 tensors include `epilogue.h`; those that read narrow operands too have the
parameter `EPILOGUE_LOADS` instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.codegen.c_expression import print_c
from builder_host.kernels.conv_direct.geometry import MAX_OPERANDS, Convolution, Strides
from builder_host.kernels.family import Array, Problem
from planformat.datatypes import DataType

# C type of an element, function that loads a vector of them as floats.
LOADS = {
    DataType.FLOAT32: ("float", "ep_load"),
    DataType.INT8: ("int8_t", "ep_load_i8"),
    DataType.UINT8: ("uint8_t", "ep_load_u8"),
    DataType.BFLOAT16: ("uint16_t", "ep_load_bf16"),
}
# Function that stores a vector of floats; with `_n` its first lanes.
STORES = {
    DataType.FLOAT32: "ep_store",
    DataType.INT8: "ep_store_8",
    DataType.UINT8: "ep_store_8",
    DataType.BFLOAT16: "ep_store_bf16",
}


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


def load_parameters(problem: Problem, strides: Sequence[Strides]) -> dict[str, int | str]:
    """NUM_OPERANDS, EPILOGUE_LOADS and EPILOGUE: whole vectors at n, block, oh, ow.

    Args:
        problem: its operands are tensors of a type of `LOADS` in the output's format, or float32
            constants per channel.
        strides: of each operand in elements: n, channel block, h, w.
    """
    own = problem.num_own_inputs
    loads = []
    for number, (layout, steps) in enumerate(zip(problem.inputs[own:], strides, strict=True)):
        terms = zip(("n", "block", "oh", "ow"), steps, strict=True)
        offset = " + ".join(f"{name} * {step}" for name, step in terms if step) or "0"
        ctype, load = LOADS[layout.dtype]
        where = f"(const {ctype} *)operands[{number}] + ({offset})"
        loads.append(f"const vf x{number + 1} = {load}({where})")
    names = [f"x{i}" for i in range(len(loads) + 1)]
    expr = problem.epilogue.expr if problem.epilogue else None
    return {
        "NUM_OPERANDS": len(loads),
        "EPILOGUE_LOADS": ";\n".join(loads) or "(void)0",
        "EPILOGUE": print_c(expr, names, vector=True) if expr is not None else "x0",
    }


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
