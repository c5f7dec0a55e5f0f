"""Operations on the bits of integers: references, and fusion where narrow values wrap."""

import numpy as np
import pytest

from builder_host.errors import NetworkError
from builder_host.expressions import INTEGER_OPS, Binary, Const, Input
from builder_host.network.evaluate import evaluate_network
from builder_host.network.layers import definition
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Network
from builder_host.network.tensor_type import TensorType
from builder_host.passes import fuse_pointwise
from planformat.datatypes import DataType

VALUES = np.asarray([5, -8, 2**62 + 1, -(2**63), 0, -1])
COUNTS = np.asarray([1, 3, 1, 63, 64, -2])


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("shift_left", [10, -64, -(2**63) + 2, 0, 0, 0]),
        ("shift_right", [2, -1, 2**61, -1, 0, -1]),
        ("bit_and", [1, 0, 1, 0, 0, -2]),
        ("bit_or", [5, -5, 2**62 + 1, -(2**63) + 63, 64, -1]),
        ("bit_xor", [4, -5, 2**62, -(2**63) + 63, 64, 1]),
    ],
)
def test_bits(op, expected):
    (value,) = definition("elementwise").reference(ElementwiseParams(op), [VALUES, COUNTS])
    assert value.tolist() == expected


@pytest.mark.parametrize("op", list(INTEGER_OPS))
def test_floats_have_no_bits_here(op):
    with pytest.raises(NetworkError, match="works on the bits of integers"):
        definition("elementwise").infer(ElementwiseParams(op), [TensorType((2,))] * 2)


@pytest.mark.parametrize(("op", "is_fused"), [("shift_right", False), ("bit_and", True)])
def test_a_narrow_value_that_may_have_wrapped_is_stored_before_a_shift_to_the_right(op, is_fused):
    network = Network()
    x = network.add_input("x", (2,), DataType.UINT8)
    total = network.add_layer("pointwise", PointwiseParams(Binary("add", Input(0), Input(0))), [x])
    params = PointwiseParams(Binary(op, Input(0), Const(1.0)))
    network.mark_output(network.add_layer("pointwise", params, [total.output]).output)
    before = evaluate_network(network, {"x": np.asarray([3, 4], np.uint8)})
    assert fuse_pointwise.run(network) == int(is_fused)
    after = evaluate_network(network, {"x": np.asarray([3, 4], np.uint8)})
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
