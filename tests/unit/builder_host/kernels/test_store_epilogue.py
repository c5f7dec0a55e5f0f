"""Epilogue operands: which are read, how constants are packed, how a bias becomes an operand."""

from __future__ import annotations

import numpy as np
import pytest

from builder_host.expressions import Binary, Input, relu
from builder_host.kernels.family import Problem
from builder_host.kernels.store_epilogue import (
    epilogue_parameters,
    operand_kind,
    pack_layout,
    pack_operands,
    pixel_offset,
    with_bias_as_operand,
)
from builder_host.layouts import Layout, dense_layout
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat

OUTPUT = dense_layout(TensorType((2, 20, 3, 4)), TensorFormat.NCHW16C)


@pytest.mark.parametrize(
    ("operand", "constant", "kind"),
    [
        (OUTPUT, False, "full"),
        (OUTPUT, True, "full"),
        (dense_layout(TensorType((20, 1, 1))), True, "channel"),
        (dense_layout(TensorType((1, 20, 1, 1))), True, "channel"),
        (dense_layout(TensorType(())), True, "channel"),
        (dense_layout(TensorType((1, 20, 1, 1))), False, None),
        (dense_layout(TensorType((20,))), True, None),
        (dense_layout(TensorType((2, 20, 3, 4))), False, None),
        (dense_layout(TensorType((1, 20, 1, 1), DataType.FLOAT16)), True, None),
    ],
)
def test_operand_kind(operand, constant, kind):
    assert operand_kind(operand, constant, OUTPUT, 1) == kind


def test_pack_layout_leaves_gaps_and_padded_lanes_zero():
    values = np.arange(1, 1 + 2 * 20 * 3 * 4, dtype=np.float32).reshape(2, 20, 3, 4)
    flat = pack_layout(values, OUTPUT)
    blocks = flat.reshape(2, 2, 3, 4, 16)
    for c in range(20):
        np.testing.assert_array_equal(blocks[:, c // 16, :, :, c % 16], values[:, c])
    assert (blocks[:, 1, :, :, 4:] == 0).all()
    strided = Layout(TensorFormat.LINEAR, (2, 3), DataType.FLOAT32, (5, 1))
    packed = pack_layout(np.ones((2, 3), np.float32), strided)
    np.testing.assert_array_equal(packed, [1, 1, 1, 0, 0, 1, 1, 1])


def test_bias_input_becomes_the_first_operand():
    w, bias = dense_layout(TensorType((20, 20, 1, 1))), dense_layout(TensorType((20,)))
    problem = Problem(
        "deconvolution",
        None,
        (OUTPUT, w, bias, OUTPUT),
        (False, True, True, False),
        (OUTPUT,),
        Epilogue(relu(Binary("mul", Input(0), Input(1))), 1),
    )
    folded = with_bias_as_operand(problem, 2, 1)
    assert folded.num_own_inputs == 2
    assert folded.inputs[2].shape == (20, 1, 1)
    biased = Binary("add", Input(0), Input(1))
    assert folded.epilogue == Epilogue(relu(Binary("mul", biased, Input(2))), 2)
    assert with_bias_as_operand(folded, 2, 1) is folded
    values = np.arange(20, dtype=np.float32)
    packed = pack_operands(folded, 1, [None, None, values, None], 16)
    np.testing.assert_array_equal(packed[0], [*values, *[0.0] * 12])
    assert packed[1] is None
    parameters = epilogue_parameters(folded, 1, channel="cb * EP_VL", full_offset=pixel_offset)
    assert "args[2] + (cb * EP_VL)" in str(parameters["EPILOGUE_LOADS"])
    assert "args[3] + (n * 384 + cb * 192 + oh * 64 + ow * 16)" in str(parameters["EPILOGUE_LOADS"])
