"""Generated pointwise code over 8-bit tensors: bits of float32 steps, and no 64-bit detour."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import make_target, run
from support.integer_kernels import F32, I8, U8, evaluate_float32, random_inputs, requantised
from support.typed_kernels import layout, problem

from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.cuda_loop_nest.family import FAMILY
from builder_host.kernels.family import Problem
from builder_host.network.layers.pointwise import PointwiseParams
from planformat.datatypes import DataType, TensorFormat

ORIN = make_target("87", 1)
NHWC = TensorFormat.NHWC


def addition(x: DataType, y: DataType) -> Problem:
    """x0 * 0.37 + x1 * 0.11, requantised: products and a sum that a compiler would join."""
    value = Binary(
        "add", Binary("mul", Input(0), Const(0.37)), Binary("mul", Input(1), Const(0.11))
    )
    shape = (1, 64, 9, 8)
    operands = [layout(shape, NHWC, x), layout(shape, NHWC, x)]
    expr = requantised(value, 1.9, y)
    return problem("pointwise", PointwiseParams(expr, y), operands, [layout(shape, NHWC, y)])


@pytest.mark.parametrize("types", [(I8, I8), (U8, U8), (F32, I8), (I8, F32)], ids=str)
def test_bits_are_those_of_float32_steps(types: tuple[DataType, DataType]) -> None:
    built = addition(*types)
    inputs = random_inputs(built)
    wanted = evaluate_float32(built.params.expr, inputs)
    got = run(FAMILY, built, ORIN, inputs)[0]
    assert (got.astype(np.float32) == wanted).all()


def test_a_clipped_result_takes_no_64_bit_detour() -> None:
    built = addition(I8, I8)
    source = FAMILY.generate(built, FAMILY.tactics(built, ORIN)[0], ORIN).source
    assert "ep_from_float<ep_i8>" in source
    assert "ep_to_i64" not in source
    assert "double" not in source
    assert "__fadd_rn(__fmul_rn(" in source, "joined, a product and a sum round once"
    assert "ep_load_pack_if<ep_i8, 16" in source, "sixteen channels at once"
