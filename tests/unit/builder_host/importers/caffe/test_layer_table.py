"""Every inference layer type of BVLC Caffe and of its forks, with random weights."""

import numpy as np
import pytest
from support.caffe_models import import_text, with_inputs

from builder_host.importers.caffe.registry import converters
from builder_host.network.evaluate import evaluate_network

X = (2, 4, 6, 6)
SAME = X
# type: (parameters, bottoms beside x, shapes of the tops)
TABLE = {
    "AbsVal": ("", [], [SAME]),
    "ArgMax": ("argmax_param { axis: 1 top_k: 2 }", [], [(2, 2, 6, 6)]),
    "Axpy": ("", [SAME, SAME], [SAME]),
    "BN": ("", [], [SAME]),
    "BNLL": ("", [], [SAME]),
    "BatchNorm": ("", [], [SAME]),
    "BatchReindex": ("", [(5,)], [(5, 4, 6, 6)]),
    "Bias": ("", [], [SAME]),
    "Clip": ("clip_param { min: 0 max: 1 }", [], [SAME]),
    "Concat": ("", [(2, 3, 6, 6)], [(2, 7, 6, 6)]),
    "Convolution": ("convolution_param { num_output: 8 kernel_size: 3 }", [], [(2, 8, 4, 4)]),
    "Crop": ("crop_param { offset: 1 }", [(2, 4, 3, 4)], [(2, 4, 3, 4)]),
    "Deconvolution": (
        "convolution_param { num_output: 3 kernel_size: 4 stride: 2 }", [], [(2, 3, 14, 14)]),
    "DepthwiseConvolution": (
        "convolution_param { num_output: 4 kernel_size: 3 }", [], [(2, 4, 4, 4)]),
    "Dropout": ("", [], [SAME]),
    "ELU": ("", [], [SAME]),
    "Eltwise": ("eltwise_param { coeff: 1 coeff: -1 coeff: 2 }", [SAME, SAME], [SAME]),
    "Embed": ("embed_param { input_dim: 9 num_output: 5 }", [], [(*X, 5)]),
    "Exp": ("", [], [SAME]),
    "Flatten": ("", [], [(2, 144)]),
    "Im2col": ("convolution_param { kernel_size: 3 }", [], [(2, 36, 4, 4)]),
    "InnerProduct": ("inner_product_param { num_output: 10 }", [], [(2, 10)]),
    "Interp": ("interp_param { height: 9 width: 5 }", [], [(2, 4, 9, 5)]),
    "LRN": ("", [], [SAME]),
    "Log": ("", [], [SAME]),
    "MVN": ("", [], [SAME]),
    "Normalize": ("norm_param { across_spatial: false }", [], [SAME]),
    "PReLU": ("", [], [SAME]),
    "Permute": ("permute_param { order: 0 order: 2 order: 3 order: 1 }", [], [(2, 6, 6, 4)]),
    "Pooling": ("pooling_param { kernel_size: 3 stride: 2 }", [], [(2, 4, 3, 3)]),
    "Power": ("power_param { power: 2 }", [], [SAME]),
    "PriorBox": ("prior_box_param { min_size: 3 }", [(2, 3, 60, 60)], [(1, 2, 144)]),
    "ReLU": ("", [], [SAME]),
    "ReLU6": ("", [], [SAME]),
    "Reduction": ("reduction_param { axis: 2 operation: ASUM }", [], [(2, 4)]),
    "Region": ("region_param { num: 1 classes: 1 coords: 2 }", [], [SAME]),
    "Reorg": ("reorg_param { stride: 2 }", [], [(2, 16, 3, 3)]),
    "Reshape": ("reshape_param { shape { dim: 0 dim: -1 dim: 6 } }", [], [(2, 24, 6)]),
    "SPP": ("spp_param { pyramid_height: 2 }", [], [(2, 20)]),
    "Scale": ("scale_param { bias_term: true }", [], [SAME]),
    "ShuffleChannel": ("shuffle_channel_param { group: 2 }", [], [SAME]),
    "Sigmoid": ("", [], [SAME]),
    "Slice": ("slice_param { slice_point: 1 }", [], [(2, 1, 6, 6), (2, 3, 6, 6)]),
    "Softmax": ("", [], [SAME]),
    "SoftmaxWithLoss": ("", [(2, 1, 6, 6)], [SAME]),
    "Split": ("", [], [SAME, SAME]),
    "Swish": ("", [], [SAME]),
    "TanH": ("", [], [SAME]),
    "Threshold": ("", [], [SAME]),
    "Tile": ("tile_param { tiles: 3 }", [], [(2, 12, 6, 6)]),
    "Upsample": ("upsample_param { scale: 2 }", [], [(2, 4, 12, 12)]),
}  # fmt: skip
# Types with tests of their own: they need several layers, a sequence, constants, or make nothing.
ELSEWHERE = {"DetectionOutput", "Filter", "LSTM", "LSTMUnit", "Parameter", "RNN", "Silence"}
OTHER_NAMES = {
    "ConvolutionDepthwise", "DeconvolutionDepthwise", "DepthwiseConv", "DepthwiseDeconvolution",
}  # fmt: skip


def test_the_table_is_complete():
    assert {*TABLE, *ELSEWHERE, *OTHER_NAMES} == set(converters())


@pytest.mark.parametrize("type_name", TABLE)
def test_a_layer_imports_and_computes(tmp_path, type_name):
    param, others, expected = TABLE[type_name]
    shapes = {"x": X} | {f"b{i}": shape for i, shape in enumerate(others)}
    if type_name == "Axpy":  # its first bottom is the factor
        shapes = {"a": (2, 4), "x": X, "y": X}
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    tops = [f"t{i}" for i in range(len(expected))]
    made = " ".join(f'top: "{name}"' for name in tops)
    text = with_inputs(
        shapes, f'layer {{ name: "layer" type: "{type_name}" {bottoms} {made} {param} }}'
    )
    network = import_text(tmp_path, text, outputs=tops)
    assert [t.shape for t in network.outputs] == expected
    generator = np.random.default_rng(0)
    values = {t.name: generator.uniform(0.1, 0.9, t.shape) for t in network.inputs}
    results = evaluate_network(network, values)
    for name, shape in zip(tops, expected, strict=True):
        assert results[name].shape == shape
        assert np.isfinite(results[name]).all()
