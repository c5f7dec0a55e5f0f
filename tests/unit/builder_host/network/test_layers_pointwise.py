"""Pointwise kinds: activations against closed forms, types, and broadcasting rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from builder_host.errors import NetworkError
from builder_host.expressions import BINARY_OPS, UNARY_OPS, Binary, Const, Input
from builder_host.network.layers import definition
from builder_host.network.layers.activation import FUNCTIONS, ActivationParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.layers.select import SelectParams
from builder_host.network.layers.unary import UnaryParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

X = np.linspace(-6, 6, 49)
SIGMOID = 1 / (1 + np.exp(-X))
ERF = np.asarray([math.erf(v / math.sqrt(2)) for v in X])
EXPECTED = {
    ("relu", None, None): np.maximum(X, 0),
    ("sigmoid", None, None): SIGMOID,
    ("tanh", None, None): np.tanh(X),
    ("leaky_relu", 0.1, None): np.where(X >= 0, X, 0.1 * X),
    ("leaky_relu", None, None): np.where(X >= 0, X, 0.01 * X),
    ("elu", 2.0, None): np.where(X >= 0, X, 2 * np.expm1(X)),
    ("selu", None, None): 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X)),
    ("softsign", None, None): X / (1 + np.abs(X)),
    ("softplus", None, None): np.log1p(np.exp(X)),
    ("softplus", 2.0, 3.0): 2 * np.log1p(np.exp(3 * X)),
    ("clip", 0.0, 6.0): np.clip(X, 0, 6),
    ("hard_sigmoid", None, None): np.clip(0.2 * X + 0.5, 0, 1),
    ("hard_swish", None, None): X * np.clip(X + 3, 0, 6) / 6,
    ("scaled_tanh", 2.0, 0.5): 2 * np.tanh(0.5 * X),
    ("thresholded_relu", 1.5, None): np.where(X > 1.5, X, 0),
    ("gelu_erf", None, None): 0.5 * X * (1 + ERF),
    ("gelu_tanh", None, None): 0.5 * X * (1 + np.tanh(0.7978845608028654 * (X + 0.044715 * X**3))),
    ("swish", None, None): X * SIGMOID,
    ("swish", 1.702, None): X / (1 + np.exp(-1.702 * X)),
    ("mish", None, None): X * np.tanh(np.log1p(np.exp(X))),
    ("celu", 2.0, None): np.maximum(X, 0) + np.minimum(0, 2 * np.expm1(X / 2)),
    ("affine", 2.0, -0.5): 2 * X - 0.5,
}


@pytest.mark.parametrize("case", list(EXPECTED), ids=str)
def test_activation(case):
    (value,) = definition("activation").reference(ActivationParams(*case), [X])
    # selu's constants are those of ONNX, rounded to float32
    np.testing.assert_allclose(
        value, EXPECTED[case], rtol=1e-7 if case[0] == "selu" else 1e-12, atol=1e-14
    )


def test_every_activation_has_a_case_and_keeps_large_values_finite():
    assert {case[0] for case in EXPECTED} == set(FUNCTIONS)
    for name in FUNCTIONS:
        (value,) = definition("activation").reference(
            ActivationParams(name), [np.asarray([-1e4, 1e4])]
        )
        assert np.isfinite(value).all(), name


def test_unknown_names_list_the_known_ones():
    with pytest.raises(NetworkError, match="'reluu' is not one of relu, sigmoid"):
        definition("activation").infer(ActivationParams("reluu"), [TensorType((1,))])
    with pytest.raises(NetworkError, match="'plus' is not one of add"):
        definition("elementwise").infer(ElementwiseParams("plus"), [TensorType((1,))] * 2)


@pytest.mark.parametrize("op", list(BINARY_OPS))
def test_elementwise_type_and_broadcast(op):
    a, b = np.asarray([[1.5], [2.0]]), np.asarray([2.0, 3.0, 1.0])
    layer = definition("elementwise")
    (inferred,) = layer.infer(ElementwiseParams(op), [TensorType(a.shape), TensorType(b.shape)])
    (value,) = layer.reference(ElementwiseParams(op), [a, b])
    assert inferred.shape == value.shape == (2, 3)
    assert (inferred.dtype is DataType.BOOL) == (value.dtype == bool)


@pytest.mark.parametrize("op", list(UNARY_OPS))
def test_unary_type(op):
    layer = definition("unary")
    (inferred,) = layer.infer(UnaryParams(op), [TensorType((3,))])
    (value,) = layer.reference(UnaryParams(op), [np.asarray([0.25, 0.5, 0.75])])
    assert (inferred.dtype is DataType.BOOL) == (value.dtype == bool)


def test_integers_stay_integers_and_division_truncates():
    a, b = np.asarray([7, -7, 2**60]), np.asarray([2, 2, 1])
    layer = definition("elementwise")
    (quotient,) = layer.reference(ElementwiseParams("div"), [a, b])
    (total,) = layer.reference(ElementwiseParams("add"), [a, b])
    assert quotient.tolist() == [3, -3, 2**60]
    assert total.tolist() == [9, -5, 2**60 + 1]


def test_scale_reads_shift_scale_power_in_this_order():
    x = np.asarray([[1.0, 2.0]])
    arrays = [x, np.asarray([1.0, 0.0]), np.asarray([2.0, 3.0]), np.asarray([2.0])]
    (value,) = definition("scale").reference(ScaleParams(True, True, True), arrays)
    assert value.tolist() == [[9.0, 36.0]]
    (value,) = definition("scale").reference(ScaleParams(False, True, False), [x, arrays[2]])
    assert value.tolist() == [[2.0, 6.0]]


def test_parametric_relu_slope_broadcasts_to_x_only():
    x = np.asarray([[-2.0, 2.0], [-4.0, 4.0]])
    (value,) = definition("parametric_relu").reference(
        ParametricReluParams(), [x, np.asarray([[0.5], [0.25]])]
    )
    assert value.tolist() == [[-1.0, 2.0], [-1.0, 4.0]]
    with pytest.raises(NetworkError, match=r"slope \(2, 2\) does not broadcast to \(1, 2\)"):
        definition("parametric_relu").infer(
            ParametricReluParams(), [TensorType((1, 2)), TensorType((2, 2))]
        )


def test_select_takes_the_type_of_its_sides():
    condition = np.asarray([True, False])
    (value,) = definition("select").reference(
        SelectParams(), [condition, np.asarray([[1], [2]]), np.asarray([9])]
    )
    assert value.tolist() == [[1, 9], [2, 9]]
    assert value.dtype == np.int64
    (inferred,) = definition("select").infer(
        SelectParams(),
        [TensorType((2,), DataType.BOOL), TensorType((2, 1), DataType.INT64),
         TensorType((1,), DataType.INT64)],
    )  # fmt: skip
    assert inferred == TensorType((2, 2), DataType.INT64)


def test_pointwise_reads_existing_inputs_only_and_states_its_type():
    layer = definition("pointwise")
    greater = Binary("gt", Input(0), Const(0.0))
    (inferred,) = layer.infer(PointwiseParams(greater, DataType.BOOL), [TensorType((2,))])
    assert inferred.dtype is DataType.BOOL
    (value,) = layer.reference(PointwiseParams(greater, DataType.BOOL), [np.asarray([1.0, -1.0])])
    assert value.tolist() == [True, False]
    with pytest.raises(NetworkError, match="reads input 3 of 1"):
        layer.infer(PointwiseParams(Input(3)), [TensorType((2,))])


def test_mixed_types_ask_for_a_cast():
    with pytest.raises(NetworkError, match="got f32, i64; insert a cast"):
        definition("elementwise").infer(
            ElementwiseParams("add"), [TensorType((1,)), TensorType((1,), DataType.INT64)]
        )
