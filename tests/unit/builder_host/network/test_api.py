"""The network-definition API: shapes, padding modes, weights as arrays, messages."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks import random, random_inputs

import builder_host as bh
import runtime_edge as rt
from builder_host.errors import NetworkError
from builder_host.expressions import Input, relu
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.network.padding_mode import PaddingMode
from planformat.datatypes import DataType

MODES = list(PaddingMode)


@pytest.fixture
def network():
    return Network()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("extent", "window", "stride"), [(7, 3, 2), (8, 3, 2), (8, 2, 3)])
def test_output_extent_by_padding_mode(network, mode, extent, window, stride):
    begin, end, dilation = 1, 0, 1
    covered = dilation * (window - 1) + 1
    explicit = extent + begin + end - covered
    caffe = extent + 2 * begin - covered
    conv = {
        PaddingMode.EXPLICIT_ROUND_DOWN: explicit // stride + 1,
        PaddingMode.EXPLICIT_ROUND_UP: -(-explicit // stride) + 1,
        PaddingMode.SAME_UPPER: -(-extent // stride),
        PaddingMode.SAME_LOWER: -(-extent // stride),
        PaddingMode.CAFFE_ROUND_DOWN: caffe // stride + 1,
        PaddingMode.CAFFE_ROUND_UP: -(-caffe // stride) + 1,
    }[mode]
    pool = conv
    if mode.is_caffe and (conv - 1) * stride >= extent + begin:
        pool -= 1
    deconv = {
        "same": min(extent * stride, (extent - 1) * stride + covered),
        "caffe": (extent - 1) * stride + covered - 2 * begin,
        "explicit": (extent - 1) * stride + covered - begin - end,
    }["same" if mode.is_same else "caffe" if mode.is_caffe else "explicit"]
    x = network.add_input("x", (1, 2, extent))
    options = {"strides": stride, "pads": begin, "pads_end": end, "padding_mode": mode}
    weights = random(3, 2, window)
    assert network.add_convolution(x, 3, window, weights, **options).output.shape == (1, 3, conv)
    if (pool - 1) * stride >= extent + begin:  # explicit rounding up keeps such a window
        with pytest.raises(NetworkError, match="outside the extent"):
            network.add_pooling(x, "max", window, **options)
    else:
        assert network.add_pooling(x, "max", window, **options).output.shape == (1, 2, pool)
    weights = random(2, 3, window)
    layer = network.add_deconvolution(x, 3, window, weights, **options)
    assert layer.output.shape == (1, 3, deconv)


def test_same_padding_puts_the_odd_cell_after_or_before(network):
    x = network.add_input("x", (1, 1, 4))
    for mode, pads in ((PaddingMode.SAME_UPPER, (0, 1)), (PaddingMode.SAME_LOWER, (1, 0))):
        layer = network.add_convolution(x, 1, 2, random(1, 1, 2), padding_mode=mode)
        assert (layer.params.pads_begin[0], layer.params.pads_end[0]) == pads


def test_weights_are_reshaped_cast_and_copied(network):
    x = network.add_input("x", (1, 3, 4, 4))
    flat = np.arange(2 * 3 * 9, dtype=np.float64)
    layer = network.add_convolution(x, 2, 3, flat, [0.5, 1.0], pads=1, name="c")
    flat[:] = 0
    weights, bias = layer.inputs[1:]
    assert weights.shape == (2, 3, 3, 3)
    assert (weights.dtype, bias.dtype) == (DataType.FLOAT32, DataType.FLOAT32)
    assert weights.values[1, 2, 2, 2] == 53
    assert weights.name == "c.weights"
    with pytest.raises(NetworkError, match="has 10 elements"):
        network.add_convolution(x, 2, 3, np.zeros(10))
    with pytest.raises(NetworkError, match=r"weights have shape \(1, 3, 3, 3\), expected"):
        network.add_convolution(x, 2, 3, network.add_constant(random(1, 3, 3, 3)))
    with pytest.raises(NetworkError, match="strides has 3 values"):
        network.add_convolution(x, 2, 3, random(2, 3, 3, 3), strides=(1, 1, 1))


def test_shuffle_is_transpose_reshape_transpose(network):
    x = network.add_input("x", (2, 6, 4))
    y = network.add_shuffle(
        x, first_transpose=(0, 2, 1), reshape=(0, 2, -1, 3), second_transpose=(0, 1, 3, 2)
    ).output
    network.mark_output(y, "y")
    assert y.shape == (2, 2, 3, 4)
    feeds = random_inputs(network)
    expected = feeds["x"].transpose(0, 2, 1).reshape(2, 2, 4, 3).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(evaluate_network(network, feeds)["y"], expected)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((-1, -1), "more than one -1"), ((5, -1), "do not fill"), ((2, 6, 4, 0), "0 at 3")],
)
def test_bad_reshapes(network, shape, words):
    x = network.add_input("x", (2, 6, 4))
    with pytest.raises(NetworkError, match=words):
        network.add_reshape(x, shape)


def test_scale_modes(network):
    x = network.add_input("x", (2, 3, 2))
    feeds = random_inputs(network)
    value = feeds["x"]
    scales = {"uniform": np.float32(2), "channel": random(3), "elementwise": random(3, 2)}
    for mode, scale in scales.items():
        layer = network.add_scale(x, mode, 1.0, scale, 2)
        network.mark_output(layer.output, mode)
    found = evaluate_network(network, feeds)
    wide = scales["channel"].reshape(1, 3, 1)
    np.testing.assert_allclose(found["uniform"], (value * 2 + 1) ** 2, rtol=1e-12)
    np.testing.assert_allclose(found["channel"], (value * wide + 1) ** 2, rtol=1e-12)
    np.testing.assert_allclose(
        found["elementwise"], (value * scales["elementwise"] + 1) ** 2, rtol=1e-12
    )


def test_every_other_method_gives_its_shape(network):
    x = network.add_input("x", (1, 4, 6, 8))
    i = np.asarray([[0, 2, 1]])
    results = {
        (1, 10): network.add_fully_connected(x, 10, random(10, 192), random(10)),
        (1, 8, 6, 8): network.add_concatenation([x, x]),
        (1, 6, 8, 4): network.add_transpose(x, (0, 2, 3, 1)),
        (1, 4, 3, 2): network.add_slice(x, (0, 0, 0, 1), (1, 4, 3, 2), (1, 1, 2, 3)),
        (1, 4, 7, 5): network.add_padding(x, (1, 0), (0, -3)),
        (1, 4, 12, 4): network.add_resize(x, scales=(1, 1, 2, 0.5), mode="linear"),
        (1, 4, 3, 3): network.add_resize(x, (1, 4, 3, 3)),
        (1, 1, 3, 6, 8): network.add_gather(x, i, axis=1),
        (1, 4, 6, 2): network.add_top_k(x, 2),
        (1, 4, 6, 1): network.add_arg_reduce(x, "max", -1),
        (1, 4, 6, 3): network.add_matrix_multiply(x, random(8, 3)),
        (1, 4, 1, 1): network.add_reduce(x, "mean", (-1, -2)),
        (5, 4, 6, 8): network.add_broadcast(x, (5, 4, 6, 8)),
    }
    for shape, layer in results.items():
        assert layer.output.shape == shape, layer.kind
    flag = network.add_elementwise(x, np.float64(0.5), "gt").output
    assert flag.dtype is DataType.BOOL
    for layer in (
        network.add_activation(x, "relu"),
        network.add_parametric_relu(x, random(4, 1, 1)),
        network.add_lrn(x, 5, 1e-4, 0.75, 1.0),
        network.add_softmax(x),
        network.add_unary(x, "exp"),
        network.add_pointwise(relu(Input(0)), [x]),
        network.add_select(flag, x, x),
        network.add_cast(x, DataType.FLOAT32),
    ):
        assert layer.output.type == x.type, layer.kind
    with pytest.raises(NetworkError, match="axis 4 is outside"):
        network.add_softmax(x, 4)
    with pytest.raises(NetworkError, match="either output_shape or scales"):
        network.add_resize(x)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_ragged_softmax_ends_at_the_bounds(network, dtype):
    values = random(2, 3, 5) * 10
    values[0, 0] -= 1e6  # far below any number that could stand for nothing
    bounds = np.asarray([[2, 5, 0], [1, 9, -1]], dtype)[..., None]
    x = network.add_input("x", values.shape)
    counts = network.add_input(
        "bounds", bounds.shape, DataType.INT32 if dtype is np.int32 else DataType.INT64
    )
    network.mark_output(network.add_ragged_softmax(x, counts).output, "y")
    expected = np.zeros(values.shape)
    for row in np.ndindex(2, 3):
        count = int(np.clip(bounds[row][0], 0, 5))
        part = values[row][:count].astype(np.float64)
        if count:
            powers = np.exp(part - part.max())
            expected[row][:count] = powers / powers.sum()
    inputs = {"x": values, "bounds": bounds}
    with np.errstate(invalid="ignore"):
        found = evaluate_network(network, inputs)["y"]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    built = bh.build(network, bh.BuilderConfig(measure="none", num_threads=1))
    with rt.load(built.to_bytes()) as engine, engine.create_context() as context:
        # Eight roundings of numbers up to one.
        np.testing.assert_allclose(context.execute(inputs)["y"], expected, atol=1e-6)


def test_ragged_softmax_needs_a_bound_for_each_row(network):
    x = network.add_input("x", (2, 3, 5))
    with pytest.raises(NetworkError, match=r"bounds have shape \(2, 3\), x of shape \(2, 3, 5\)"):
        network.add_ragged_softmax(x, np.zeros((2, 3), np.int32))
    with pytest.raises(NetworkError, match="bounds are f32, must be INT32 or INT64"):
        network.add_ragged_softmax(x, np.zeros((2, 3, 1), np.float32))


def test_messages_name_layer_and_origin(network):
    x = network.add_input("x", (1, 3, 8, 8))
    params = network.add_activation(x, "relu").params
    with pytest.raises(NetworkError, match=r"layer 'r' \(a.onnx node 3 Relu\): activation: takes"):
        network.add_layer("activation", params, [x, x], "r", origin="a.onnx node 3 Relu")
    with pytest.raises(NetworkError, match="takes SoftmaxParams, not ActivationParams"):
        network.add_layer("softmax", params, [x])
