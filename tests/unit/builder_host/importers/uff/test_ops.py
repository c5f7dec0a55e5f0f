"""Every operation against numpy in the file's own axis order (channels last)."""

import math

import numpy as np
import pytest
from support.uff_models import CK, HWCK, NC, NHWC, UffFile, run_node

from builder_host.importers.uff.model import import_uff
from builder_host.importers.uff.registry import converters
from builder_host.network.evaluate import evaluate_network

RNG = np.random.default_rng(3)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def same_pads(extent, kernel, stride, dilation=1):
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(extent / stride) - 1) * stride + reach - extent, 0)
    return total // 2, total - total // 2


def conv_nhwc(x, kernel, strides=(1, 1), dilation=(1, 1), pads=((0, 0), (0, 0))):
    """Loops over kernel cells; kernel [H, W, C, K]."""
    x = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)]
    out = [(e - r) // s + 1 for e, r, s in zip(x.shape[1:3], reach, strides, strict=True)]
    y = np.zeros((x.shape[0], *out, kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows = x[:, i * dilation[0] :: strides[0], j * dilation[1] :: strides[1]]
            y += rows[:, : out[0], : out[1]] @ kernel[i, j].astype(np.float64)
    return y


@pytest.mark.parametrize(
    ("fields", "pads"),
    [
        ({}, ((0, 0), (0, 0))),
        ({"implicit_padding": "same"}, (same_pads(9, 4, 2), same_pads(8, 3, 1))),
        ({"implicit_padding": "valid"}, ((0, 0), (0, 0))),
        ({"padding": [2, 1]}, ((2, 2), (1, 1))),
    ],
)
def test_conv(tmp_path, fields, pads):
    x, kernel = random(2, 9, 8, 3), random(4, 3, 3, 5)
    orders = [NHWC, HWCK]
    y = run_node(tmp_path, "Conv", x, kernel, inputs_orders=orders, strides=[2, 1], **fields)
    np.testing.assert_allclose(y, conv_nhwc(x, kernel, (2, 1), pads=pads), atol=1e-5)


def test_dilated_conv(tmp_path):
    x, kernel = random(1, 9, 8, 2), random(3, 3, 2, 4)
    y = run_node(
        tmp_path, "Conv", x, kernel, inputs_orders=[NHWC, HWCK], strides=[1, 1], dilation=[2, 3]
    )
    np.testing.assert_allclose(y, conv_nhwc(x, kernel, dilation=(2, 3)), atol=1e-5)


def test_depthwise_conv_has_channel_times_multiplier_outputs(tmp_path):
    x, kernel = random(1, 6, 7, 3), random(3, 2, 3, 2)  # TensorFlow: [H, W, C, multiplier]
    y = run_node(tmp_path, "DepthwiseConv", x, kernel, inputs_orders=[NHWC, HWCK], strides=[1, 1])
    wide = np.zeros((3, 2, 3, 6), np.float32)
    for c in range(3):
        wide[:, :, c, 2 * c : 2 * c + 2] = kernel[:, :, c]
    np.testing.assert_allclose(y, conv_nhwc(x, wide), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "fields"),
    [([8, 10], {"implicit_padding": "same"}), ([9, 11], {}), ([1, 7, 9, 2], {"padding": [1, 1]})],
)
def test_conv_transpose_is_the_gradient_of_conv(tmp_path, shape, fields):
    """<conv(a), x> = <a, conv_transpose(x)> for every a."""
    x, kernel = random(1, 4, 5, 3), random(3, 3, 2, 3)
    sizes = shape if len(shape) == 2 else shape[1:3]
    y = run_node(
        tmp_path,
        "ConvTranspose",
        x,
        kernel,
        np.asarray(shape, np.int32),
        inputs_orders=[NHWC, HWCK],
        strides=[2, 2],
        **fields,
    )
    assert y.shape == (1, *sizes, 2)
    a = random(*y.shape)
    pads = ((0, 0), (0, 0))
    if "implicit_padding" in fields:
        pads = tuple(same_pads(e, 3, 2) for e in sizes)
    elif "padding" in fields:
        pads = ((1, 1), (1, 1))
    forward = conv_nhwc(a, kernel, (2, 2), pads=pads)
    assert np.sum(forward * x) == pytest.approx(np.sum(a * y), rel=1e-5)


@pytest.mark.parametrize("func", ["max", "avg"])
@pytest.mark.parametrize("implicit", ["same", "valid"])
def test_pool(tmp_path, func, implicit):
    x = random(2, 7, 6, 3)
    y = run_node(
        tmp_path,
        "Pool",
        x,
        func=func,
        kernel=[3, 2],
        strides=[2, 2],
        implicit_padding=implicit,
        inputs_orders=[NHWC],
    )
    pads = [same_pads(7, 3, 2), same_pads(6, 2, 2)] if implicit == "same" else [(0, 0), (0, 0)]
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(1, 2))[:, ::2, ::2]
    reduce = np.nanmax if func == "max" else np.nanmean  # the average counts real cells only
    np.testing.assert_allclose(y, reduce(windows, axis=(-2, -1)), atol=1e-6)


def test_fully_connected(tmp_path):
    x, w = random(3, 5), random(5, 4)
    y = run_node(tmp_path, "FullyConnected", x, w, inputs_orders=[NC, CK])
    np.testing.assert_allclose(y, x.astype(np.float64) @ w, atol=1e-6)


def test_lrn_does_not_divide_alpha(tmp_path):
    x = random(1, 2, 3, 7)
    y = run_node(
        tmp_path, "LRN", x, window_size=5, alpha=0.3, beta=0.75, k=2.0, inputs_orders=[NHWC]
    )
    squares = np.pad(x.astype(np.float64) ** 2, ((0, 0),) * 3 + ((2, 2),))
    total = sum(squares[..., i : i + 7] for i in range(5))
    np.testing.assert_allclose(y, x / (2.0 + 0.3 * total) ** 0.75, atol=1e-6)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
}


@pytest.mark.parametrize("func", BINARY)
@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (2, 1, 3, 4)])
def test_binary_with_a_constant(tmp_path, func, shape):
    x, c = np.abs(random(2, 5, 3, 4)) + 0.5, np.abs(random(*shape)) + 0.5
    y = run_node(tmp_path, "Binary", x, c.astype(np.float32), func=func)
    expected = BINARY[func](x.astype(np.float64), c.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=1e-9)


def test_binary_behind_a_convolution_broadcasts_in_the_files_order(tmp_path):
    file = UffFile()
    x, kernel, row = random(1, 5, 6, 2), random(1, 1, 2, 3), random(6, 3)
    file.input("x", x.shape)
    file.constant("k", kernel)
    file.constant("row", row)
    file.node("conv", "Conv", "x", "k", inputs_orders=[NHWC, HWCK], strides=[1, 1])
    file.node("left", "Binary", "row", "conv", func="sub")
    file.node("line", "Reduce", "left", func="sum", axes=[1, 2])  # [N, C]
    file.node("y", "Binary", "left", "line", func="mul")
    file.output("y")
    network = import_uff(file.save(tmp_path), order="NHWC")
    (y,) = evaluate_network(network, {"x": x}).values()
    left = row - conv_nhwc(x, kernel)
    np.testing.assert_allclose(y, left * left.sum((1, 2)), atol=1e-4)


UNARY = {
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": lambda x: np.arccosh(x + 1),
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "floor": np.floor,
}


@pytest.mark.parametrize("func", UNARY)
def test_unary(tmp_path, func):
    x = RNG.uniform(0.05, 0.95, (2, 7)).astype(np.float32)
    values = x + 1 if func == "acosh" else x
    y = run_node(tmp_path, "Unary", values.astype(np.float32), func=func)
    expected = UNARY[func](x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=1e-5)  # x + 1 is rounded to float32


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
}


@pytest.mark.parametrize("func", ACTIVATIONS)
def test_activation(tmp_path, func):
    x = random(3, 11) * 4
    y = run_node(tmp_path, "Activation", x, func=func)
    np.testing.assert_allclose(y, ACTIVATIONS[func](x.astype(np.float64)), atol=1e-6)


def test_leaky_relu(tmp_path):
    x = random(3, 11)
    y = run_node(tmp_path, "LeakyRelu", x, alpha=0.2)
    np.testing.assert_allclose(y, np.where(x > 0, x, 0.2 * x.astype(np.float64)), atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "axis"),
    [
        ({}, -1),
        ({"inputs_orders": [NHWC]}, 3),  # the channels
        ({"inputs_orders": [NHWC], "axis": 0}, 3),
        ({"inputs_orders": [NHWC], "axis": 1}, 1),  # canonical axis 2: height
    ],
)
def test_softmax(tmp_path, fields, axis):
    x = random(2, 3, 4, 5)
    y = run_node(tmp_path, "Softmax", x, **fields)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(y, e / e.sum(axis=axis, keepdims=True), atol=1e-9)


@pytest.mark.parametrize("func", ["sum", "prod", "max", "min", "mean"])
@pytest.mark.parametrize("keep", [False, True])
def test_reduce(tmp_path, func, keep):
    x = random(2, 3, 4, 5)
    y = run_node(tmp_path, "Reduce", x, func=func, axes=[1, -1], keepdims=keep)
    expected = getattr(x.astype(np.float64), func)(axis=(1, 3), keepdims=keep)
    np.testing.assert_allclose(y, expected, atol=1e-9)


@pytest.mark.parametrize("operation", ["ArgMax", "ArgMin"])
def test_arg_reduce(tmp_path, operation):
    x = random(2, 3, 4)
    y = run_node(tmp_path, operation, x, axis=-1)
    np.testing.assert_array_equal(y, getattr(np, operation.lower())(x, axis=-1))


@pytest.mark.parametrize(
    ("operation", "constants", "fields", "expected"),
    [
        ("Reshape", [[2, 4, -1]], {}, lambda x: x.reshape(2, 4, -1)),
        ("Reshape", [[1, 60]], {}, lambda x: x.reshape(2, 60)),  # 1: the batch of training
        ("Flatten", [], {}, lambda x: x.reshape(2, 60)),
        ("ExpandDims", [], {"axis": 1}, lambda x: x[:, None]),
        ("ExpandDims", [], {"axis": -1}, lambda x: x[..., None]),
        ("Transpose", [], {"permutation": [0, 3, 1, 2]}, lambda x: x.transpose(0, 3, 1, 2)),
        ("Transpose", [[0, 2, 1, 3]], {}, lambda x: x.transpose(0, 2, 1, 3)),
        ("Gather", [[2, 0]], {"axis": 3}, lambda x: x[..., [2, 0]]),
        ("GatherV2", [[1, 1], 2], {}, lambda x: x[:, :, [1, 1]]),
        ("Pad", [[[0, 0], [1, 2], [0, 3], [0, 0]]], {}, None),
        ("Identity", [], {}, lambda x: x),
    ],
)
def test_data_movement(tmp_path, operation, constants, fields, expected):
    x = random(2, 3, 4, 5)
    arrays = [np.asarray(c, np.int32) for c in constants]
    y = run_node(tmp_path, operation, x, *arrays, **fields)
    wanted = np.pad(x, constants[0]) if expected is None else expected(x)
    np.testing.assert_array_equal(y, wanted)


def test_squeeze(tmp_path):
    x = random(2, 1, 1, 5)
    assert run_node(tmp_path, "Squeeze", x, axes=[1, 2]).shape == (2, 5)
    assert run_node(tmp_path, "Squeeze", x).shape == (2, 5)
    assert run_node(tmp_path, "Squeeze", x[:1]).shape == (1, 5)  # the batch stays


@pytest.mark.parametrize(
    ("index", "begin", "end", "step", "masks"),
    [
        (np.s_[:, 1:3], [0, 1], [0, 3], [1, 1], {"begin_mask": 1, "end_mask": 1}),
        (np.s_[:, ::-1], [0, 0], [0, 0], [1, -1], {"begin_mask": 3, "end_mask": 3}),
        (np.s_[:, 3:0:-2, -1], [0, 3, -1], [0, 0, 0], [1, -2, 1], {
            "begin_mask": 1, "end_mask": 1, "shrink_axis_mask": 4}),
        (np.s_[1, 2:9], [1, 2], [2, 9], [1, 1], {"shrink_axis_mask": 1}),
    ],
)  # fmt: skip
def test_strided_slice(tmp_path, index, begin, end, step, masks):
    x = random(2, 4, 5)
    arrays = [np.asarray(a, np.int32) for a in (begin, end, step)]
    np.testing.assert_array_equal(run_node(tmp_path, "StridedSlice", x, *arrays, **masks), x[index])


def test_batch_norm(tmp_path):
    x = random(2, 3, 4, 5)
    gamma, beta, mean, variance = random(5), random(5), random(5), np.abs(random(5))
    y = run_node(
        tmp_path, "BatchNorm", x, gamma, beta, mean, variance, epsilon=0.01, inputs_orders=[NHWC]
    )
    expected = (x.astype(np.float64) - mean) / np.sqrt(variance + 0.01) * gamma + beta
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("operation", "join"), [("Concat", np.concatenate), ("Stack", np.stack)])
def test_join_of_images_in_both_orders(tmp_path, operation, join):
    """One part is channels first inside (behind a convolution), the other is not."""
    file = UffFile()
    x, kernel = random(1, 4, 5, 2), random(1, 1, 2, 2)
    file.input("x", x.shape)
    file.constant("k", kernel)
    file.node("conv", "Conv", "x", "k", inputs_orders=[NHWC, HWCK], strides=[1, 1])
    file.node("y", operation, "x", "conv", axis=2)
    file.output("y")
    network = import_uff(file.save(tmp_path), order="NHWC")
    (y,) = evaluate_network(network, {"x": x}).values()
    np.testing.assert_allclose(y, join([x, conv_nhwc(x, kernel)], axis=2), atol=1e-5)


def test_shape_arithmetic_disappears(tmp_path):
    """Reshape to [batch, -1] as Keras writes it: Shape, StridedSlice, Stack."""
    file = UffFile()
    x = random(3, 4, 5)
    file.input("x", (-1, 4, 5))
    file.node("shape", "Shape", "x")
    for name, values in (("b", [0]), ("e", [1]), ("s", [1])):
        file.constant(name, np.asarray(values, np.int32))
    file.node("batch", "StridedSlice", "shape", "b", "e", "s", shrink_axis_mask=1)
    file.constant("rest", np.asarray(-1, np.int32))
    file.node("wanted", "Stack", "batch", "rest", axis=0)
    file.node("y", "Reshape", "x", "wanted")
    file.output("y")
    network = import_uff(file.save(tmp_path), shapes={"x": x.shape})
    assert [layer.kind for layer in network.layers] == ["reshape"]
    (y,) = evaluate_network(network, {"x": x}).values()
    np.testing.assert_array_equal(y, x.reshape(3, 20))


def test_every_operation_of_the_format_has_a_converter():
    """The public operator list, without those that the walk itself knows."""
    listed = (
        "Activation ArgMax ArgMin BatchNorm Binary Concat Conv ConvTranspose ExpandDims Flatten "
        "FullyConnected Gather GatherV2 Identity LRN LeakyRelu Pad Pool Reduce Reshape Shape "
        "Softmax Squeeze Stack StridedSlice Transpose Unary"
    )
    assert set(listed.split()) <= set(converters())
