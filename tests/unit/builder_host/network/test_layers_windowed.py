"""Convolution, deconvolution and pooling against ONNX Runtime and hand-made cases."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import onnxruntime as ort
import pytest
from support.networks import random

from builder_host.errors import NetworkError
from builder_host.network.layers import definition
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.layers.pooling import PoolingParams, pooled_extent
from builder_host.network.tensor_type import TensorType

# float32 sums of at most 5*5*8 products of normal values: eps * sqrt(terms) * 8 sigma, rounded up
TOLERANCE = 1e-4


def run_ort(op: str, arrays: list[np.ndarray], **attributes: object) -> np.ndarray:
    names = [f"i{n}" for n in range(len(arrays))]
    node = oh.make_node(op, names, ["y"], **attributes)
    graph = oh.make_graph(
        [node],
        "g",
        [oh.make_tensor_value_info(n, 1, a.shape) for n, a in zip(names, arrays, strict=True)],
        [oh.make_tensor_value_info("y", 1, None)],  # shape inferred
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 19)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def check(kind, params, arrays, expected):
    layer = definition(kind)
    (inferred,) = layer.infer(params, [TensorType(a.shape) for a in arrays])
    (value,) = layer.reference(params, arrays)
    assert inferred.shape == value.shape == expected.shape
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(
    ("strides", "begin", "end", "dilations", "window"),
    [
        ((1, 1), (0, 0), (0, 0), (1, 1), (1, 1)),
        ((1, 1), (1, 1), (1, 1), (1, 1), (3, 3)),
        ((2, 3), (0, 2), (1, 0), (1, 1), (3, 5)),
        ((2, 1), (2, 2), (2, 2), (2, 3), (2, 3)),
    ],
)
def test_convolution_equals_onnxruntime(groups, strides, begin, end, dilations, window):
    arrays = [random(2, 8, 11, 13), random(16, 8 // groups, *window, seed=1), random(16, seed=2)]
    expected = run_ort(
        "Conv", arrays, strides=strides, pads=(*begin, *end), dilations=dilations, group=groups
    )
    params = ConvolutionParams(strides, begin, end, dilations, groups)
    check("convolution", params, arrays, expected)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(
    ("strides", "begin", "end", "dilations", "extra", "window"),
    [
        ((1, 1), (0, 0), (0, 0), (1, 1), (0, 0), (3, 3)),
        ((2, 2), (1, 0), (0, 1), (1, 1), (1, 0), (4, 2)),
        ((3, 2), (1, 2), (1, 0), (2, 1), (0, 1), (3, 3)),
    ],
)
def test_deconvolution_equals_onnxruntime(groups, strides, begin, end, dilations, extra, window):
    arrays = [random(2, 8, 5, 6), random(8, 16 // groups, *window, seed=1), random(16, seed=2)]
    expected = run_ort(
        "ConvTranspose", arrays, strides=strides, pads=(*begin, *end), dilations=dilations,
        output_padding=extra, group=groups,
    )  # fmt: skip
    params = DeconvolutionParams(strides, begin, end, dilations, extra, groups)
    check("deconvolution", params, arrays, expected)


def test_one_and_three_dimensional_convolution():
    for extent in ((9,), (4, 5, 6)):
        rank = len(extent)
        arrays = [random(1, 3, *extent), random(4, 3, *(3,) * rank, seed=1)]
        expected = run_ort("Conv", arrays, pads=(1,) * 2 * rank)
        ones = (1,) * rank
        check("convolution", ConvolutionParams(ones, ones, ones, ones), arrays, expected)


def test_negative_pads_crop():
    x, w = random(1, 2, 8, 8), random(3, 2, 3, 3, seed=1)
    params = ConvolutionParams((1, 1), (-1, 1), (0, -2), (1, 1))
    padded = np.pad(x[:, :, 1:, :6], ((0, 0), (0, 0), (0, 0), (1, 0)))
    (expected,) = definition("convolution").reference(
        ConvolutionParams((1, 1), (0, 0), (0, 0), (1, 1)), [padded, w]
    )
    check("convolution", params, [x, w], expected)


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize(
    ("window", "strides", "begin", "end"),
    [
        ((2, 2), (2, 2), (0, 0), (0, 0)),
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((3, 2), (1, 3), (2, 0), (0, 1)),
        ((3, 3), (2, 2), (0, 0), (0, 0)),
    ],
)
def test_pooling_equals_onnxruntime(mode, include, rounding, window, strides, begin, end):
    x = random(2, 3, 10, 11)
    attributes = {
        "kernel_shape": window, "strides": strides, "pads": (*begin, *end),
        "ceil_mode": int(rounding == "ceil"),
    }  # fmt: skip
    if mode == "average":
        attributes["count_include_pad"] = int(include)
    expected = run_ort("MaxPool" if mode == "max" else "AveragePool", [x], **attributes)
    out = tuple(
        pooled_extent(x.shape[2 + i], window[i], strides[i], begin[i], end[i], 1, rounding)
        for i in range(2)
    )
    params = PoolingParams(mode, window, strides, begin, end, out, (1, 1), include)
    check("pooling", params, [x], expected)


def test_caffe_pooling_divisor_is_the_window_clipped_to_the_padded_extent():
    # extent 4, pad 1, window 3, stride 2, ceil: windows -1..1, 1..3, 3..5; the last is clipped
    # to 5 = extent + pad, so it counts 2 of 3 cells
    assert pooled_extent(4, 3, 2, 1, 1, 1, "ceil") == 3
    params = PoolingParams("average", (1, 3), (1, 2), (0, 1), (0, 1), (1, 3), (1, 1), True)
    x = np.asarray([[[[1.0, 2.0, 3.0, 4.0]]]])
    (y,) = definition("pooling").reference(params, [x])
    assert y.tolist() == [[[[1.0, 3.0, 2.0]]]]


def test_ceil_drops_a_window_that_starts_in_the_end_padding():
    assert pooled_extent(4, 2, 2, 1, 1, 1, "ceil") == 3
    assert pooled_extent(5, 2, 3, 1, 1, 1, "ceil") == 2  # without the drop: 3, starting at 6


@pytest.mark.parametrize(
    ("shapes", "groups", "words"),
    [
        (((1, 3, 8, 8), (4, 5, 3, 3)), 1, "3 channels"),
        (((1, 4, 8, 8), (3, 2, 3, 3)), 2, "3 output maps do not divide into 2 groups"),
        (((1, 3, 8, 8), (4, 3, 3)), 1, "rank"),
        (((1, 3, 1, 8), (4, 3, 3, 3)), 1, "window of 3 does not fit the padded extent 1"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (5,)), 1, "bias has shape (5,)"),
    ],
)
def test_convolution_names_the_broken_rule(shapes, groups, words):
    params = ConvolutionParams((1, 1), (0, 0), (0, 0), (1, 1), groups)
    with pytest.raises(NetworkError) as caught:
        definition("convolution").infer(params, [TensorType(s) for s in shapes])
    assert words in str(caught.value)


def test_pooling_refuses_windows_outside_the_tensor():
    def infer(begin, out):
        params = PoolingParams("max", (2,), (2,), (begin,), (0,), (out,), (1,), False)
        definition("pooling").infer(params, [TensorType((1, 1, 4))])

    infer(1, 3)
    with pytest.raises(NetworkError, match="starts at 4, outside the extent 4"):
        infer(0, 3)
    with pytest.raises(NetworkError, match="holds the first window"):
        infer(2, 2)
