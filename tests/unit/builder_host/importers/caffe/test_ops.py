"""Each layer type against its definition written out in numpy, in float64.

Both sides work in float64 from the same float32 parameters, so differences are those of
reordered sums: 1e-6 absolute is wide for values of order one (float32 constants made from
float64 statistics add 6e-8 relative).
"""

import math

import numpy as np
import pytest
from support.caffe_models import run_layer

from builder_host.errors import ImportModelError

RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
A = RNG.standard_normal(X.shape).astype(np.float32)
B = RNG.standard_normal(X.shape).astype(np.float32)


def only(tmp_path, body, x=X, blobs=None):
    (y,) = run_layer(tmp_path, body, {"x": x}, blobs)
    return y


def close(actual, expected):
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=1e-6)


X64 = X.astype(np.float64)


def f32(value):
    return float(np.float32(value))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('type: "ReLU"', np.maximum(X64, 0)),
        ('type: "ReLU" relu_param { negative_slope: 0.25 }', np.where(X64 > 0, X64, X64 / 4)),
        ('type: "ReLU6"', np.clip(X64, 0, 6)),
        ('type: "ELU" elu_param { alpha: 0.5 }', np.where(X64 > 0, X64, 0.5 * np.expm1(X64))),
        ('type: "Sigmoid"', 1 / (1 + np.exp(-X64))),
        ('type: "TanH"', np.tanh(X64)),
        ('type: "BNLL"', np.log1p(np.exp(X64))),
        ('type: "AbsVal"', np.abs(X64)),
        ('type: "Swish" swish_param { beta: 2 }', X64 / (1 + np.exp(-2 * X64))),
        ('type: "Clip" clip_param { min: -0.5 max: 0.25 }', np.clip(X64, -0.5, 0.25)),
        ('type: "Power" power_param { power: 2 scale: 3 shift: -1 }', (3 * X64 - 1) ** 2),
        ('type: "Power" power_param { power: 3 }', X64**3),
        ('type: "Power" power_param { scale: 2 shift: 1 }', 2 * X64 + 1),
        ('type: "Exp"', np.exp(X64)),
        ('type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }', 2 ** (0.5 * X64 + 1)),
        ('type: "Threshold" threshold_param { threshold: 0.5 }', (X64 > 0.5) * 1.0),
        ('type: "Dropout" dropout_param { dropout_ratio: 0.9 }', X64),
        ('type: "Softmax"', np.exp(X64) / np.exp(X64).sum(1, keepdims=True)),
        (
            'type: "Softmax" softmax_param { axis: -1 }',
            np.exp(X64) / np.exp(X64).sum(3, keepdims=True),
        ),
        ('type: "Flatten"', X64.reshape(2, 120)),
        ('type: "Flatten" flatten_param { axis: 1 end_axis: 2 }', X64.reshape(2, 20, 6)),
        (
            'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 dim: 2 } }',
            X64.reshape(2, 60, 2),
        ),
        (
            'type: "Reshape" reshape_param { axis: 1 num_axes: 2 shape { dim: 2 dim: 10 } }',
            X64.reshape(2, 2, 10, 6),
        ),
        (
            'type: "Reshape" reshape_param { axis: -1 shape { dim: 1 } }',
            X64.reshape(2, 4, 5, 6, 1),
        ),
        ('type: "Permute" permute_param { order: 0 order: 2 }', X64.transpose(0, 2, 1, 3)),
        ('type: "Tile" tile_param { axis: 2 tiles: 3 }', np.tile(X64, (1, 1, 3, 1))),
        ('type: "Reduction"', np.asarray(X64.sum())),
        (
            'type: "Reduction" reduction_param { axis: 1 operation: ASUM }',
            np.abs(X64).sum((1, 2, 3)),
        ),
        (
            'type: "Reduction" reduction_param { axis: -2 operation: SUMSQ coeff: 0.5 }',
            0.5 * (X64**2).sum((2, 3)),
        ),
        ('type: "Reduction" reduction_param { axis: 2 operation: MEAN }', X64.mean((2, 3))),
        ('type: "ArgMax" argmax_param { axis: 1 }', X64.argmax(1)[:, None]),
        (
            'type: "ArgMax" argmax_param { axis: 1 out_max_val: true }',
            X64.max(1, keepdims=True),
        ),
        ('type: "ArgMax"', X64.reshape(2, -1).argmax(1).reshape(2, 1, 1, 1)),
        (
            'type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }',
            np.stack(
                [
                    np.argsort(-X64.reshape(2, -1), axis=1)[:, :2],
                    -np.sort(-X64.reshape(2, -1), axis=1)[:, :2],
                ],
                axis=1,
            )[..., None],
        ),
        (
            'type: "MVN"',
            (X64 - X64.mean((2, 3), keepdims=True)) / (X64.std((2, 3), keepdims=True) + 1e-9),
        ),
        (
            'type: "MVN" mvn_param { across_channels: true normalize_variance: false }',
            X64 - X64.mean((1, 2, 3), keepdims=True),
        ),
        (
            'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
            X64[:, [0, 2, 1, 3]],
        ),
        (
            'type: "Upsample" upsample_param { scale: 2 }',
            X64.repeat(2, axis=2).repeat(2, axis=3),
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_layer_without_weights(tmp_path, body, expected):
    close(only(tmp_path, body), expected)


def test_log_of_another_base(tmp_path):
    x = np.abs(X) + 0.5
    expected = np.log(2 * x.astype(np.float64) + 1) / math.log(10)
    close(only(tmp_path, 'type: "Log" log_param { base: 10 scale: 2 shift: 1 }', x), expected)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ("", X64 + A + B),
        ("operation: PROD", X64 * A * B),
        ("operation: MAX", np.maximum(np.maximum(X64, A), B)),
        ("coeff: 0.5 coeff: -1 coeff: 2", 0.5 * X64 - A + 2.0 * B),
    ],
)
def test_eltwise_of_three(tmp_path, params, expected):
    body = f'type: "Eltwise" eltwise_param {{ {params} }}'
    (y,) = run_layer(tmp_path, body, {"x": X, "a": A, "b": B})
    close(y, expected)


def test_eltwise_of_two_with_coefficients(tmp_path):
    body = 'type: "Eltwise" eltwise_param { coeff: 1 coeff: -1 }'
    (y,) = run_layer(tmp_path, body, {"x": X, "a": A})
    close(y, X64 - A)


@pytest.mark.parametrize("name", ["axis", "concat_dim"])
def test_concat(tmp_path, name):
    body = f'type: "Concat" concat_param {{ {name}: 2 }}'
    (y,) = run_layer(tmp_path, body, {"x": X, "a": A})
    close(y, np.concatenate([X64, A], axis=2))


def test_slice_at_points_and_in_equal_parts(tmp_path):
    body = 'type: "Slice" slice_param { axis: 3 slice_point: 1 slice_point: 4 }'
    parts = run_layer(tmp_path, body, {"x": X}, tops=("p", "q", "r"))
    for part, expected in zip(parts, np.split(X64, [1, 4], axis=3), strict=True):
        close(part, expected)
    parts = run_layer(tmp_path, 'type: "Slice"', {"x": X}, tops=("p", "q"))
    for part, expected in zip(parts, np.split(X64, 2, axis=1), strict=True):
        close(part, expected)


def test_split_makes_outputs_of_their_own(tmp_path):
    for part in run_layer(tmp_path, 'type: "Split"', {"x": X}, tops=("p", "q")):
        close(part, X64)


def test_crop_with_one_offset_for_all_axes(tmp_path):
    like = np.zeros((9, 9, 3, 2), np.float32)
    body = 'type: "Crop" crop_param { axis: 2 offset: 1 }'
    (y,) = run_layer(tmp_path, body, {"x": X, "like": like})
    close(y, X64[:, :, 1:4, 1:3])


def test_interp_aligns_corners(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    y = only(tmp_path, 'type: "Interp" interp_param { zoom_factor: 2 }', x)
    close(y, [[[[0, 0.5, 1, 1.5, 2], [1.5, 2, 2.5, 3, 3.5], [3, 3.5, 4, 4.5, 5]]]])


# --- windows ---------------------------------------------------------------------------------


def pooled(x, kernel, stride, pad, mode):
    """BVLC's loops: extents rounded up, windows clipped to the padded, then to the real map."""
    n, c, h, w = x.shape

    def extent(size):
        out = math.ceil((size + 2 * pad - kernel) / stride) + 1
        return out - 1 if pad and (out - 1) * stride >= size + pad else out

    y = np.empty((n, c, extent(h), extent(w)))
    for i, j in np.ndindex(*y.shape[2:]):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + kernel, h + pad), min(left + kernel, w + pad)
        cells = (bottom - top) * (right - left)
        part = x[:, :, max(top, 0) : min(bottom, h), max(left, 0) : min(right, w)]
        y[:, :, i, j] = part.max((2, 3)) if mode == "MAX" else part.sum((2, 3)) / cells
    return y


@pytest.mark.parametrize("mode", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 2, 1), (3, 1, 1), (4, 3, 2)]
)
def test_pooling(tmp_path, mode, kernel, stride, pad):
    body = (
        f'type: "Pooling" pooling_param {{ pool: {mode} kernel_size: {kernel} stride: {stride} '
        f"pad: {pad} }}"
    )
    close(only(tmp_path, body), pooled(X64, kernel, stride, pad, mode))


def test_pooling_of_the_whole_map_and_rounding_down(tmp_path):
    body = 'type: "Pooling" pooling_param { pool: AVE global_pooling: true }'
    close(only(tmp_path, body), X64.mean((2, 3), keepdims=True))
    body = 'type: "Pooling" pooling_param { kernel_h: 2 kernel_w: 3 stride: 2 round_mode: FLOOR }'
    windows = np.lib.stride_tricks.sliding_window_view(X64, (2, 3), axis=(2, 3))[:, :, ::2, ::2]
    close(only(tmp_path, body), windows.max((4, 5)))


def test_stochastic_pooling_weighs_values_by_themselves(tmp_path):
    x = np.maximum(X, 0)
    x[0, 0, :3, :3] = 0
    body = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }'
    y = np.zeros((2, 4, 2, 3))
    for i, j in np.ndindex(2, 3):
        window = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].astype(np.float64)
        total = window.sum((2, 3))
        y[:, :, i, j] = np.divide((window**2).sum((2, 3)), total, out=0 * total, where=total > 0)
    close(only(tmp_path, body, x), y)


def test_pooling_mask_and_its_inverse(tmp_path):
    body = 'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }'
    values, mask = run_layer(tmp_path, body, {"x": X}, tops=("p", "mask"))
    back = np.zeros((2, 4, 6 * 6))
    for n, c, i, j in np.ndindex(2, 4, 3, 3):
        window = X64[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(window.argmax(), window.shape)
        place = (2 * i + a) * 6 + 2 * j + b
        assert mask[n, c, i, j] == place
        assert values[n, c, i, j] == window.max()
        back[n, c, place] = window.max()
    for params, rows in (
        ("scale: 2", 6),
        ("scale: 2 pad_out_h: true", 5),
        ("upsample_h: 7 upsample_w: 6", 7),
    ):
        body = f'type: "Upsample" upsample_param {{ {params} }}'
        inputs = {"p": values.astype(np.float32), "mask": mask.astype(np.float32)}
        (y,) = run_layer(tmp_path, body, inputs)
        expected = np.zeros((2, 4, rows * 6))
        expected[:, :, : min(rows, 6) * 6] = back[:, :, : min(rows, 6) * 6]
        close(y, expected.reshape(2, 4, rows, 6))


def convolved(x, w, stride, pad, dilation, groups):
    """Cross-correlation, height first in every pair."""
    n, _, h, wide = x.shape
    maps, depth, kh, kw = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    out = [
        (size + 2 * p - (d * (k - 1) + 1)) // s + 1
        for size, p, d, k, s in zip((h, wide), pad, dilation, (kh, kw), stride, strict=True)
    ]
    y = np.zeros((n, maps, *out))
    for m in range(maps):
        first = m // (maps // groups) * depth
        for i, j in np.ndindex(kh, kw):
            top, left = i * dilation[0], j * dilation[1]
            part = padded[
                :,
                first : first + depth,
                top : top + stride[0] * (out[0] - 1) + 1 : stride[0],
                left : left + stride[1] * (out[1] - 1) + 1 : stride[1],
            ]
            y[:, m] += np.einsum("nchw,c->nhw", part, w[m, :, i, j])
    return y


def test_convolution_with_all_parameters(tmp_path):
    w = RNG.standard_normal((6, 2, 3, 2)).astype(np.float32)
    b = RNG.standard_normal(6).astype(np.float32)
    body = (
        'type: "Convolution" convolution_param { num_output: 6 group: 2 kernel_h: 3 kernel_w: 2 '
        "stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2 dilation: 1 dilation: 2 }"
    )
    expected = convolved(X64, w, (2, 1), (1, 2), (1, 2), 2) + b.reshape(1, 6, 1, 1)
    close(only(tmp_path, body, blobs=[w, b]), expected)


def test_convolution_lists_are_height_first(tmp_path):
    w = RNG.standard_normal((1, 4, 3, 2)).astype(np.float32)
    body = (
        'type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 kernel_size: 2 '
        "stride: 2 stride: 1 bias_term: false }"
    )
    expected = convolved(X64, w, (2, 1), (0, 0), (1, 1), 1)
    close(only(tmp_path, body, blobs=[w]), expected)


@pytest.mark.parametrize("name", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_names(tmp_path, name):
    w = RNG.standard_normal((4, 1, 3, 3)).astype(np.float32)
    body = f'type: "{name}" convolution_param {{ num_output: 4 kernel_size: 3 bias_term: false }}'
    close(only(tmp_path, body, blobs=[w]), convolved(X64, w, (1, 1), (0, 0), (1, 1), 4))


def test_deconvolution_scatters(tmp_path):
    w = RNG.standard_normal((4, 3, 3, 2)).astype(np.float32)
    body = (
        'type: "Deconvolution" convolution_param { num_output: 6 group: 2 kernel_size: 3 '
        "kernel_size: 2 stride: 2 stride: 3 pad: 1 pad: 0 bias_term: false }"
    )
    full = np.zeros((2, 6, 2 * 4 + 3, 3 * 5 + 2))
    for c, k, i, j in np.ndindex(4, 3, 3, 2):
        full[:, c // 2 * 3 + k, i : i + 9 : 2, j : j + 16 : 3] += X64[:, c] * w[c, k, i, j]
    close(only(tmp_path, body, blobs=[w]), full[:, :, 1:-1])


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_inner_product(tmp_path, axis, transpose):
    volume = math.prod(X.shape[axis:])
    w = RNG.standard_normal((3, volume)).astype(np.float32)
    b = RNG.standard_normal(3).astype(np.float32)
    body = (
        f'type: "InnerProduct" inner_product_param {{ num_output: 3 axis: {axis} '
        f"transpose: {str(transpose).lower()} }}"
    )
    lead = X.shape[:axis]
    expected = (X64.reshape(-1, volume) @ w.astype(np.float64).T + b).reshape(*lead, 3)
    close(only(tmp_path, body, blobs=[w.T if transpose else w, b]), expected)


# --- normalisation ---------------------------------------------------------------------------

MEAN = RNG.standard_normal(4).astype(np.float32)
VARIANCE = RNG.uniform(0.5, 2, 4).astype(np.float32)
GAIN = RNG.standard_normal(4).astype(np.float32)
OFFSET = RNG.standard_normal(4).astype(np.float32)


def channels(values):
    return np.asarray(values, np.float64).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("factor", [1.0, 4.0, 0.0])
def test_batch_norm_divides_by_the_stored_factor(tmp_path, factor):
    body = 'type: "BatchNorm" batch_norm_param { eps: 0.125 }'
    by = 1 / factor if factor else 0.0
    expected = (X64 - channels(MEAN) * by) / np.sqrt(channels(VARIANCE) * by + 0.125)
    close(only(tmp_path, body, blobs=[MEAN, VARIANCE, np.float32([factor])]), expected)


def test_batch_norm_of_nvcaffe_has_scale_and_bias(tmp_path):
    body = 'type: "BatchNorm" batch_norm_param { eps: 0.125 scale_bias: true }'
    blobs = [MEAN, VARIANCE, np.float32([4.0]), GAIN, OFFSET]
    unit = (X64 - channels(MEAN)) / np.sqrt(channels(VARIANCE) + 0.125)
    close(only(tmp_path, body, blobs=blobs), unit * channels(GAIN) + channels(OFFSET))


def test_batch_norm_of_a_matrix(tmp_path):
    x = X[:, :, 0, 0]
    expected = (x - MEAN.astype(np.float64)) / np.sqrt(VARIANCE.astype(np.float64) + f32(1e-5))
    blobs = [MEAN, VARIANCE, np.float32([1])]
    close(only(tmp_path, 'type: "BatchNorm"', x, blobs), expected)


def test_batch_norm_with_the_statistics_of_the_batch(tmp_path):
    body = 'type: "BatchNorm" batch_norm_param { use_global_stats: false eps: 0.125 }'
    mean, variance = X64.mean((0, 2, 3), keepdims=True), X64.var((0, 2, 3), keepdims=True)
    blobs = [MEAN, VARIANCE, np.float32([1])]
    close(only(tmp_path, body, blobs=blobs), (X64 - mean) / np.sqrt(variance + 0.125))


@pytest.mark.parametrize(
    ("params", "shape", "full"),
    [
        ("", (4,), (1, 4, 1, 1)),
        ("axis: 2", (5,), (1, 1, 5, 1)),
        ("axis: 1 num_axes: 2", (4, 5), (1, 4, 5, 1)),
        ("axis: 0 num_axes: -1", X.shape, X.shape),
        ("num_axes: 0", (), (1, 1, 1, 1)),
        ("axis: -1", (6,), (1, 1, 1, 6)),
    ],
)
def test_scale_and_bias_along_axes(tmp_path, params, shape, full):
    gain = RNG.standard_normal(shape).astype(np.float32)
    offset = RNG.standard_normal(shape).astype(np.float32)
    body = f'type: "Scale" scale_param {{ {params} bias_term: true }}'
    expected = X64 * gain.reshape(full) + offset.reshape(full)
    close(only(tmp_path, body, blobs=[gain, offset]), expected)
    body = f'type: "Scale" scale_param {{ {params} }}'
    close(only(tmp_path, body, blobs=[gain]), X64 * gain.reshape(full))
    body = f'type: "Bias" bias_param {{ {params} }}'
    close(only(tmp_path, body, blobs=[offset]), X64 + offset.reshape(full))


def test_scale_by_a_second_bottom(tmp_path):
    gate = RNG.standard_normal((2, 4)).astype(np.float32)
    body = 'type: "Scale" scale_param { axis: 0 }'
    (y,) = run_layer(tmp_path, body, {"x": X, "gate": gate})
    close(y, X64 * gate[:, :, None, None])
    body = 'type: "Scale" scale_param { axis: 0 bias_term: true }'
    (y,) = run_layer(tmp_path, body, {"x": X, "gate": gate}, [gate])
    close(y, (X64 + 1) * gate[:, :, None, None])


def test_prelu_per_channel_and_shared(tmp_path):
    expected = np.where(X64 > 0, X64, X64 * channels(GAIN))
    close(only(tmp_path, 'type: "PReLU"', blobs=[GAIN]), expected)
    body = 'type: "PReLU" prelu_param { channel_shared: true }'
    close(only(tmp_path, body, blobs=[np.float32(0.25)]), np.where(X64 > 0, X64, X64 / 4))


def test_lrn_across_channels(tmp_path):
    body = 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }'
    padded = np.pad(X64**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    close(only(tmp_path, body), X64 / (2 + 0.5 / 3 * total) ** 0.75)


def test_lrn_within_a_channel_averages_like_pooling(tmp_path):
    body = (
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 7 '
        "norm_region: WITHIN_CHANNEL }"
    )
    average = pooled(X64**2, 3, 1, 1, "AVE")
    close(only(tmp_path, body), X64 * (1 + 0.5 * average) ** -0.75)


def test_normalize_per_cell_and_per_image(tmp_path):
    body = 'type: "Normalize" norm_param { across_spatial: false channel_shared: false }'
    length = np.sqrt((X64**2).sum(1, keepdims=True) + 1e-10)
    close(only(tmp_path, body, blobs=[GAIN]), X64 / length * channels(GAIN))
    length = np.sqrt((X64**2).sum((1, 2, 3), keepdims=True) + 1e-10)
    close(only(tmp_path, 'type: "Normalize"', blobs=[np.float32(3)]), X64 / length * 3)


def test_prior_boxes_are_a_constant(tmp_path):
    image = np.zeros((1, 3, 50, 100), np.float32)
    features = np.zeros((1, 8, 1, 2), np.float32)
    body = (
        'type: "PriorBox" prior_box_param { min_size: 20 max_size: 80 aspect_ratio: 4 '
        "flip: false variance: 0.5 }"
    )
    (y,) = run_layer(tmp_path, body, {"f": features, "image": image})
    # Steps are 50 x 50 pixels, centres (25, 25) and (75, 25); sides 20, sqrt(20*80) and 40 x 10.
    cells = [
        [(cx - w / 2) / 100, (25 - h / 2) / 50, (cx + w / 2) / 100, (25 + h / 2) / 50]
        for cx in (25, 75)
        for w, h in ((20, 20), (40, 40), (40, 10))
    ]
    close(y, [[np.ravel(cells), np.full(24, 0.5)]])


def test_detection_output_has_fixed_rows(tmp_path):
    prior = np.zeros((1, 2, 8), np.float32)
    prior[0, 0] = [0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.8, 0.8]
    prior[0, 1] = 0.1
    body = (
        'type: "DetectionOutput" detection_output_param { num_classes: 2 keep_top_k: 3 '
        "confidence_threshold: 0.5 nms_param { nms_threshold: 0.4 } code_type: CENTER_SIZE }"
    )
    inputs = {
        "loc": np.zeros((1, 8), np.float32),
        "conf": np.float32([[0.2, 0.8, 0.7, 0.3]]),
        "prior": prior,
    }
    (y,) = run_layer(tmp_path, body, inputs)
    rows = y[0, 0]
    close(rows[0], [0, 1, f32(0.8), 0.1, 0.1, 0.3, 0.3])
    assert (rows[1:, 0] == -1).all()
    assert y.shape == (1, 1, 3, 7)


# --- rules that models break -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('type: "Convolution" convolution_param { num_output: 4 }', "kernel_size is missing"),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 9 }',
            "reaches over 9 cells, the bottom 2x4x5x6 has 5",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 group: 3 }',
            "do not divide into 3 groups",
        ),
        ('type: "Convolution" convolution_param { kernel_size: 1 }', "num_output is 0"),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 kernel_h: 2 }',
            "both stated",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 stride: 0 }',
            "stride is (0, 0)",
        ),
        (
            'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }',
            "STOCHASTIC takes no padding, pad is (1, 1)",
        ),
        ('type: "Upsample" upsample_param { upsample_h: 9 }', "belongs to the form with a mask"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }', "must be smaller"),
        ('type: "Pooling" pooling_param { kernel_size: 7 }', "larger than the bottom"),
        ('type: "Softmax" softmax_param { axis: 4 }', "axis is 4"),
        ('type: "LRN" lrn_param { local_size: 4 }', "local_size is 4"),
        ('type: "Eltwise"', "has 1 bottoms"),
        ('type: "Reshape" reshape_param { shape { dim: 7 dim: -1 } }', "do not divide"),
        ('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', "more than one -1"),
        ('type: "Permute" permute_param { order: 1 order: 1 }', "different axes"),
        ('type: "Clip"', "needs both min and max"),
        ('type: "Slice" slice_param { axis: 1 slice_point: 2 }', "1 slice points for 1 tops"),
        ('type: "Tile"', "tiles is 0"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', "3 groups"),
        ('type: "Scale" scale_param { axis: 3 num_axes: 2 }', "go past"),
        ('type: "ArgMax" argmax_param { axis: 1 top_k: 5 }', "must be 1 .. 4"),
        ('type: "DetectionOutput"', "has 1 bottoms, takes 3"),
        ('type: "Crop"', "has 1 bottoms, takes 2"),
    ],
    ids=lambda v: v,
)
def test_broken_rules_are_named(tmp_path, body, says):
    with pytest.raises(ImportModelError) as caught:
        only(tmp_path, body)
    (problem,) = caught.value.problems
    assert problem.startswith("m.prototxt:2 ")
    assert "'t': " in problem
    assert says in problem


def test_pooling_window_behind_the_map(tmp_path):
    x = np.zeros((1, 1, 6, 6), np.float32)
    body = 'type: "Pooling" pooling_param { kernel_size: 1 stride: 4 }'
    with pytest.raises(ImportModelError, match="starts behind the bottom 1x1x6x6"):
        only(tmp_path, body, x)
