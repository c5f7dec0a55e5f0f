"""Trained Caffe networks of tests/data: import, evaluate in float64, compare with stored outputs.

The tolerance is the `atol` of each case in cases.json: the stored outputs come from float32
engines, so differences are their rounding, not ours.
"""

import json

import numpy as np
import pytest
from support.caffe_models import TOPOLOGY_OPTIONS
from support.cases import DATA, case, load, model_paths, preprocessed

from builder_host.importers.caffe.model import import_caffe
from builder_host.importers.caffe.weights import read_binaryproto
from builder_host.network.evaluate import evaluate_network

CASE_IDS = [
    row["id"]
    for row in json.loads((DATA / "cases.json").read_text())["cases"]
    if row["id"].startswith("caffe/") and "outputs" in row
]


@pytest.mark.parametrize("case_id", CASE_IDS)
def test_outputs_are_those_stored(case_id):
    one = case(case_id)
    inputs = {name: preprocessed(one, load(path)) for name, path in one.inputs.items()}
    network = import_caffe(
        *model_paths(one),
        shapes={name: array.shape for name, array in inputs.items()},
        outputs=list(one.outputs),
    )
    results = evaluate_network(network, inputs)
    assert list(results) == list(one.outputs)
    for output, stored in one.outputs.items():
        actual, expected = results[output], load(stored)
        if case_id == "caffe/conv_bn/cat":
            actual = actual[:, :16]  # so many channels were kept
        if case_id == "caffe/wechat_qr/qr":
            # Only as many rows are filled as there are boxes; engines fill the rest differently.
            actual, expected = (a[0, 0][a[0, 0, :, 2] > 0] for a in (actual, expected))
            assert len(expected) == 1
        np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=0, atol=one.atol)


def test_lenet_gets_990_of_1000_digits():
    one = case("caffe/lenet/accuracy")
    stored = load(one.inputs["data"])
    images = next(a for a in stored.values() if a.ndim == 3)
    labels = next(a for a in stored.values() if a.ndim == 1)
    network = import_caffe(*model_paths(one), shapes={"data": (1000, 1, 28, 28)})
    inputs = {"data": preprocessed(one, images[:, None])}
    (prob,) = evaluate_network(network, inputs).values()
    assert int((prob.argmax(1) == labels).sum()) == 990


def test_mean_of_imagenet():
    mean = read_binaryproto(DATA / "caffe/mean/ilsvrc_2012_mean.binaryproto")
    assert mean.dtype == np.float32
    assert mean.shape == (1, 3, 256, 256)
    np.testing.assert_allclose(mean.mean((0, 2, 3)), [104.007, 116.669, 122.679], atol=1e-3)


# --- topologies without weights --------------------------------------------------------------

SHAPES = {
    "MobileNetSSD.deploy.prototxt": {"detection_out": (1, 1, 100, 7)},
    "ResNet-152-deploy.prototxt": {"prob": (1, 1000)},
    "ResNet-50-deploy.prototxt": {"prob": (1, 1000)},
    "SSD_300x300_VGG_coco.deploy.prototxt": {"detection_out": (1, 1, 200, 7)},
    "bvlc_alexnet.deploy.prototxt": {"prob": (10, 1000)},
    "bvlc_alexnet.deploy_fp16.prototxt": {"prob": (10, 1000)},
    "bvlc_caffenet_full_conv.prototxt": {"prob": (1, 1000, 8, 8)},
    "bvlc_googlenet.deploy.prototxt": {"prob": (10, 1000)},
    "bvlc_googlenet.train_val.prototxt": {
        "loss1/loss1": (1, 1000),
        "loss2/loss2": (1, 1000),
        "loss3/loss3": (1, 1000),
    },
    "bvlc_reference_caffenet.deploy.prototxt": {"prob": (10, 1000)},
    "cifar10_full.prototxt": {"prob": (1, 10)},
    "cifar10_full_sigmoid_train_test_bn.prototxt": {"loss": (1, 10)},
    "cifar10_quick.prototxt": {"prob": (1, 10)},
    "digits_lenet_3ch.deploy.prototxt": {"softmax": (1, 10)},
    "googlenet_ilsvrc12.trt_demos.deploy.prototxt": {"prob": (1, 1000)},
    "gtsrb.prototxt": {"loss": (1, 43)},
    "lenet_train_test.prototxt": {"loss": (1, 10)},
    "lrcn.prototxt": {"cross_entropy_loss": (3, 2, 8801)},
    "lstm_lm.deploy.prototxt": {"probs": (1, 1, 8801)},
    "mnist_autoencoder.prototxt": {"decode1neuron": (1, 784)},
    "mnist_siamese.prototxt": {"feat": (10000, 2)},
    "mnist_siamese_train_test.prototxt": {"feat": (1, 2), "feat_p": (1, 2)},
    "mobilenet_v1.deploy.prototxt": {"prob": (1, 1000, 1, 1)},
    "resnet50_nvcaffe_trt.deploy.prototxt": {"prob": (1, 1000)},
    "s2vt.prototxt": {"cross_entropy_loss": (80, 32, 46168)},
    "s2vt.words_to_preds.deploy.prototxt": {"probs": (1, 1, 46168)},
    "siftflow-fcn8s.test.prototxt": {"loss": (1, 33, 64, 64), "loss_geo": (1, 3, 64, 64)},
    "squeezenet_v1.0.deploy.prototxt": {"prob": (10, 1000, 1, 1)},
    "squeezenet_v1.1.train_val.prototxt": {"loss": (1, 1000, 1, 1)},
    "vgg-16.prototxt": {"prob": (10, 1000)},
    "voc-fcn8s.deploy.prototxt": {"score": (1, 21, 500, 500)},
}


@pytest.mark.parametrize("file", [p.name for p in sorted((DATA / "caffe/deploy").iterdir())])
def test_every_published_topology(file):
    path = DATA / "caffe/deploy" / file
    network = import_caffe(path, **TOPOLOGY_OPTIONS.get(file, {}))
    assert {t.name: t.shape for t in network.outputs} == SHAPES[file]
