"""Real UFF files: import, evaluate in float64, compare with TensorFlow's outputs.

The tolerance is the `atol` of each case: the stored outputs come from a float32 engine.
"""

import numpy as np
import pytest
from support.cases import case, load, model_paths, preprocessed

from builder_host.importers.uff.model import import_uff
from builder_host.network.evaluate import evaluate_network


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_all_cnn_reads_ten_digits(order):
    one = case("uff/allcnn/digits")
    (path,) = model_paths(one)
    values = preprocessed(one, load(one.inputs["input_layer_1"]))
    if order == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    network = import_uff(path, shapes={"input_layer_1": values.shape}, order=order)
    assert [t.name for t in network.inputs] == ["input_layer_1"]
    (prob,) = evaluate_network(network, {"input_layer_1": values}).values()
    np.testing.assert_allclose(prob, load(one.outputs["AllCNN/Softmax"]), rtol=0, atol=one.atol)
    assert prob.argmax(1).tolist() == [0, 1, 2, 3, 4, 5, 0, 7, 8, 9]


def test_all_cnn_needs_no_transposes_between_layers():
    (path,) = model_paths(case("uff/allcnn/digits"))
    network = import_uff(path, shapes={"input_layer_1": (1, 1, 28, 28)})
    assert "transpose" not in {layer.kind for layer in network.layers}


def test_all_cnn_gets_848_of_1000_digits():
    (path,) = model_paths(case("uff/allcnn/digits"))
    stored = load("images/mnist/t10k_first1000.npz")
    images = next(a for a in stored.values() if a.ndim == 3)
    labels = next(a for a in stored.values() if a.ndim == 1)
    network = import_uff(path, shapes={"input_layer_1": (1000, 28, 28, 1)}, order="NHWC")
    values = {"input_layer_1": images[..., None].astype(np.float32)}
    (prob,) = evaluate_network(network, values).values()
    assert int((prob.argmax(1) == labels).sum()) == 848


def test_policy_network():
    one = case("uff/ppo/random8")
    (path,) = model_paths(one)
    values = load(one.inputs["input_state_placeholder"])
    network = import_uff(path, shapes={"input_state_placeholder": values.shape})
    (action,) = evaluate_network(network, {"input_state_placeholder": values}).values()
    np.testing.assert_allclose(action, load(one.outputs["policy/output"]), rtol=0, atol=one.atol)


def test_an_open_batch_is_one():
    (path,) = model_paths(case("uff/ppo/random8"))
    assert import_uff(path).inputs[0].shape == (1, 67)
