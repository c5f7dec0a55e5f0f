"""Layer types of BVLC that few networks use, and those of forks, each against numpy."""

import itertools
import math

import numpy as np
import pytest
from support.caffe_models import import_text, run_layer, with_inputs

from builder_host.errors import ImportModelError
from builder_host.importers.caffe.registry import converters
from builder_host.importers.caffe.sources import DATA_TYPES, TRAINING_TYPES
from builder_host.network.evaluate import evaluate_network

RNG = np.random.default_rng(19)

# Every layer type of BVLC Caffe's layer catalogue and of its SSD fork.
BVLC = (
    "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss "
    "Convolution Crop Data Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp "
    "Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input "
    "LRN LSTM Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN "
    "ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax "
    "SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData "
    "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox "
    "SmoothL1Loss VideoData"
)
FORKS = "Axpy BN DepthwiseConvolution Interp ReLU6 Region Reorg ShuffleChannel Upsample"


def test_every_layer_type_is_imported_read_or_left_out_as_training():
    known = {*converters(), *DATA_TYPES, *TRAINING_TYPES}
    assert sorted({*BVLC.split(), *FORKS.split()} - known) == []


def close(actual, expected):
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=1e-6)


def only(folder, body, x, blobs=None):
    (y,) = run_layer(folder, body, {"x": x}, blobs)
    return y


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def problem_of(folder, text, blobs=None):
    with pytest.raises(ImportModelError) as caught:
        import_text(folder, text, blobs)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("param", "kernel", "pad", "stride", "dilation"),
    [
        ("kernel_size: 3", (3, 3), (0, 0), (1, 1), (1, 1)),
        ("kernel_h: 2 kernel_w: 3 pad_h: 1 pad_w: 2 stride: 2", (2, 3), (1, 2), (2, 2), (1, 1)),
        ("kernel_size: 2 dilation: 3", (2, 2), (0, 0), (1, 1), (3, 3)),
    ],
)
def test_im2col(tmp_path, param, kernel, pad, stride, dilation):
    x = random(2, 3, 7, 8)
    y = only(tmp_path, f'type: "Im2col" convolution_param {{ {param} }}', x)
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    outputs = [
        (e - (k - 1) * d - 1) // s + 1
        for e, k, d, s in zip(padded.shape[2:], kernel, dilation, stride, strict=True)
    ]
    expected = np.empty((2, 3 * math.prod(kernel), *outputs))
    for c, i, j in itertools.product(range(3), range(kernel[0]), range(kernel[1])):
        for h, w in itertools.product(*map(range, outputs)):
            expected[:, (c * kernel[0] + i) * kernel[1] + j, h, w] = padded[
                :, c, h * stride[0] + i * dilation[0], w * stride[1] + j * dilation[1]
            ]
    close(y, expected)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 6, 9), (1, 2, 13, 10)])
def test_spp(tmp_path, method, shape):
    x = random(*shape)
    y = only(tmp_path, f'type: "SPP" spp_param {{ pyramid_height: 3 pool: {method} }}', x)
    parts = [pyramid_level(x.astype(np.float64), 1 << level, method) for level in range(3)]
    close(y, np.concatenate(parts, axis=1))


def pyramid_level(x, bins, method):
    """BVLC: kernel = stride = ceil(extent / bins), padding (kernel * bins - extent + 1) / 2."""
    n, c, h, w = x.shape
    kernels = [math.ceil(e / bins) for e in (h, w)]
    pads = [(k * bins - e + 1) // 2 for k, e in zip(kernels, (h, w), strict=True)]
    rows = []
    for i, j in itertools.product(range(bins), range(bins)):
        low = [t * k - p for t, k, p in zip((i, j), kernels, pads, strict=True)]
        high = [min(a + k, e + p) for a, k, e, p in zip(low, kernels, (h, w), pads, strict=True)]
        size = (high[0] - low[0]) * (high[1] - low[1])  # the padding counts, as in Pooling
        cell = x[:, :, max(low[0], 0) : min(high[0], h), max(low[1], 0) : min(high[1], w)]
        rows.append(cell.max((2, 3)) if method == "MAX" else cell.sum((2, 3)) / size)
    return np.stack(rows, axis=2).reshape(n, c * bins * bins)


def test_spp_of_one_level_stays_an_image(tmp_path):
    x = random(2, 3, 5, 6)
    y = only(tmp_path, 'type: "SPP" spp_param { pyramid_height: 1 }', x)
    close(y, x.max((2, 3), keepdims=True))


def test_spp_with_more_bins_than_pixels_is_refused(tmp_path):
    text = with_inputs(
        {"x": (1, 1, 3, 9)},
        'layer { name: "t" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 3 } }',
    )
    assert "m.prototxt:2 SPP 't': pyramid_height 3" in problem_of(tmp_path, text)


def test_batch_reindex(tmp_path):
    x, numbers = random(4, 3, 2), np.asarray([2, 0, 2, 3, 1], np.float32)
    (y,) = run_layer(tmp_path, 'type: "BatchReindex"', {"x": x, "n": numbers})
    close(y, x[[2, 0, 2, 3, 1]])


def test_filter_by_a_stored_selector(tmp_path):
    text = with_inputs(
        {"a": (4, 3), "b": (4, 2, 2)},
        """layer { name: "chosen" type: "Parameter" top: "s" parameter_param { shape { dim: 4 } } }
layer { name: "t" type: "Filter" bottom: "a" bottom: "b" bottom: "s" top: "ya" top: "yb" }""",
    )
    network = import_text(tmp_path, text, {"chosen": [np.asarray([0, 1, 0, 2])]})
    a, b = random(4, 3), random(4, 2, 2)
    results = evaluate_network(network, {"a": a, "b": b})
    close(results["ya"], a[[1, 3]])
    close(results["yb"], b[[1, 3]])


def test_filter_by_a_computed_selector_says_why_not(tmp_path):
    text = with_inputs(
        {"a": (4, 3), "s": (4,)},
        'layer { name: "t" type: "Filter" bottom: "a" bottom: "s" top: "y" }',
    )
    assert "depends on the data" in problem_of(tmp_path, text)


@pytest.mark.parametrize(("shape", "stride"), [((1, 4, 4, 6), 2), ((2, 18, 6, 3), 3)])
def test_reorg_is_darknets(tmp_path, shape, stride):
    x = random(*shape)
    y = only(tmp_path, f'type: "Reorg" reorg_param {{ stride: {stride} }}', x)
    n, c, h, w = shape
    groups = c // stride**2
    coarse = x.reshape(n, groups, h * stride, w * stride)
    expected = np.empty_like(x)
    for k, j, i in itertools.product(range(c), range(h), range(w)):
        shift = k // groups
        row, column = j * stride + shift // stride, i * stride + shift % stride
        expected[:, k, j, i] = coarse[:, k % groups, row, column]
    close(y, expected.reshape(n, c * stride**2, h // stride, w // stride))


@pytest.mark.parametrize("is_softmax", [True, False])
def test_region(tmp_path, is_softmax):
    x = random(2, 2 * 8, 3, 4)
    body = f"region_param {{ num: 2 classes: 3 softmax: {str(is_softmax).lower()} }}"
    y = only(tmp_path, f'type: "Region" {body}', x)
    expected = x.astype(np.float64).reshape(2, 2, 8, 3, 4).copy()
    for part in [0, 1, 4] if is_softmax else [0, 1, 4, 5, 6, 7]:
        expected[:, :, part] = 1 / (1 + np.exp(-expected[:, :, part]))
    if is_softmax:
        scores = np.exp(expected[:, :, 5:])
        expected[:, :, 5:] = scores / scores.sum(axis=2, keepdims=True)
    close(y, expected.reshape(x.shape))


def test_bn_with_statistics_and_folded(tmp_path):
    x = random(2, 3, 4, 5)
    slope, bias, mean = random(3), random(3), random(3)
    variance = np.abs(random(3)) + 0.1
    y = only(tmp_path, 'type: "BN" bn_param { eps: 0.01 }', x, [slope, bias, mean, variance])
    normal = (x - mean[:, None, None]) / np.sqrt(variance.astype(np.float64) + 0.01)[:, None, None]
    close(y, normal * slope[:, None, None] + bias[:, None, None])
    folded = 'type: "BN" bn_param { bn_mode: INFERENCE }'
    blobs = [slope.reshape(1, 3, 1, 1), bias.reshape(1, 3, 1, 1)]
    close(only(tmp_path, folded, x, blobs), x * slope[:, None, None] + bias[:, None, None])


def test_axpy(tmp_path):
    a, x, y = random(2, 3), random(2, 3, 4, 5), random(2, 3, 4, 5)
    (z,) = run_layer(tmp_path, 'type: "Axpy"', {"a": a, "x": x, "b": y})
    close(z, a[:, :, None, None] * x + y)


def test_five_unsupported_layers_make_one_report_with_lines(tmp_path):
    layers = "\n".join(
        f'layer {{ name: "odd{n}" type: "Odd{n}" bottom: "t{n}" top: "t{n + 1}" }}'
        for n in range(5)
    )
    text = with_inputs({"t0": (1, 3)}, layers)
    with pytest.raises(ImportModelError) as caught:
        import_text(tmp_path, text)
    problems = caught.value.problems
    assert [p.partition(": ")[0] for p in problems] == [
        f"m.prototxt:{2 + n} Odd{n} 'odd{n}'" for n in range(5)
    ]
    assert all("docs/plugins.md" in p and "--outputs" in p for p in problems)
