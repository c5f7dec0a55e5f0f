"""The float64 reference is computed once per network, and again after any change of it."""

from __future__ import annotations

import numpy as np
import pytest

import builder_host as bh
from builder_host.codegen.artifacts import ArtifactStore
from builder_host.emit import remembered_reference
from builder_host.emit.remembered_reference import network_hash, remembered_outputs
from builder_host.emit.verification import reference_outputs


def network(*, scale=0.5, filters=4, stride=1, activation="relu", channels=3):
    net = bh.Network("net")
    x = net.add_input("x", (1, channels, 6, 6))
    weights = np.random.default_rng(7).standard_normal((filters, channels, 3, 3)) * scale
    y = net.add_convolution(x, filters, 3, weights.astype(np.float32), strides=stride, pads=1)
    net.mark_output(net.add_activation(y.output, activation).output, name="y")
    return net


@pytest.fixture
def evaluations(monkeypatch):
    """The networks that were evaluated."""
    seen = []

    def counted(net):
        seen.append(net)
        return reference_outputs(net)

    monkeypatch.setattr(remembered_reference, "reference_outputs", counted)
    return seen


def test_an_unchanged_network_is_evaluated_once(tmp_path, evaluations):
    store = ArtifactStore(tmp_path)
    first = remembered_outputs(network(), store)
    again = remembered_outputs(network(), store)
    assert len(evaluations) == 1
    assert list(again) == list(first) == ["y"]
    assert again["y"].dtype == first["y"].dtype == np.float64
    np.testing.assert_array_equal(again["y"], first["y"])


@pytest.mark.parametrize("num_kept", [0, 40, -30])
def test_what_was_cut_short_on_the_disk_is_made_again(tmp_path, evaluations, num_kept):
    store = ArtifactStore(tmp_path)
    first = remembered_outputs(network(), store)
    file = next(tmp_path.rglob("outputs.npz"))
    file.write_bytes(file.read_bytes()[:num_kept])
    again = [remembered_outputs(network(), store)["y"] for _ in range(2)]
    assert len(evaluations) == 2
    for values in again:
        np.testing.assert_array_equal(values, first["y"])


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.5000001},
        {"filters": 5},
        {"stride": 2},
        {"activation": "sigmoid"},
        {"channels": 2},
    ],
)
def test_a_changed_network_is_evaluated_again(tmp_path, evaluations, change):
    store = ArtifactStore(tmp_path)
    remembered_outputs(network(), store)
    other = remembered_outputs(network(**change), store)
    assert len(evaluations) == 2
    np.testing.assert_array_equal(other["y"], reference_outputs(network(**change))["y"])


def test_changed_code_of_the_reference_counts(monkeypatch):
    before = network_hash(network())
    monkeypatch.setattr(remembered_reference, "_code_hash", lambda: "another release")
    assert network_hash(network()) != before


def test_which_input_a_layer_reads_counts():
    def difference(order):
        net = bh.Network("net")
        a, b = net.add_input("a", (4,)), net.add_input("b", (4,))
        first, second = (a, b) if order else (b, a)
        net.mark_output(net.add_elementwise(first, second, "sub").output, name="y")
        return net

    assert network_hash(difference(True)) != network_hash(difference(False))


def test_without_a_store_nothing_is_kept(evaluations):
    remembered_outputs(network(), None)
    remembered_outputs(network(), None)
    assert len(evaluations) == 2
