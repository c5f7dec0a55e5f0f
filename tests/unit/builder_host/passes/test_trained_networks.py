"""The whole pipeline on trained networks: same outputs, and as few layers as fusion allows."""

from __future__ import annotations

from collections import Counter

import pytest
from support.cases import DATA
from support.networks import assert_kept

from builder_host.importers.caffe.model import import_caffe
from builder_host.importers.onnx.model import import_onnx
from builder_host.passes.pipeline import run_passes

# new weights are rounded to float32 (2^-24 each); deep networks add up tens of such errors
TOLERANCE = 2e-6

EXPECTED = {
    "caffe/lenet/lenet.prototxt": {"convolution": 2, "pooling": 2, "fully_connected": 2},
    "caffe/mtcnn/det2.prototxt": {"convolution": 3, "pooling": 2, "fully_connected": 3},
    "caffe/yoloface/yoloface-100k.prototxt": {"convolution": 36, "pooling": 3, "concatenation": 3},
    "caffe/conv_bn/test.prototxt": {"convolution": 1, "pooling": 1},
    "onnx/mnist/mnist-8.onnx": {"convolution": 2, "pooling": 2, "fully_connected": 1},
    "onnx/classify/SqueezeNet_fp16.onnx": {"convolution": 26, "concatenation": 8, "cast": 2},
    "onnx/yunet/face_detection_yunet_2022mar.onnx": {"convolution": 43, "pointwise": 0},
    "onnx/fastestdet/FastestDet.onnx": {"convolution": 70, "slice": 26, "gather": 0},
    "onnx/selfie_seg/selfie_segmentation_landscape.onnx": {"convolution": 54, "deconvolution": 1},
}


@pytest.mark.parametrize("path", list(EXPECTED))
def test_trained_network(path):
    file = DATA / path
    if file.suffix == ".onnx":
        network = import_onnx(file)
    else:
        (weights,) = file.parent.glob(f"{file.stem.split('_')[0]}*.caffemodel")
        network = import_caffe(file, weights)
    assert_kept(network, lambda net: len(run_passes(net)), None, TOLERANCE)
    found = Counter(layer.kind for layer in network.layers)
    assert {kind: found[kind] for kind in EXPECTED[path]} == EXPECTED[path]
