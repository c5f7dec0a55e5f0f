"""`--precision best`: sensitive layers found by measuring, unprofitable ones by the cost model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.networks import convolution, kinds, random

import builder_host as bh
from builder_host.accuracy.sensitivity import trade_precision
from builder_host.accuracy.trade_off_chart import trade_off_svg
from builder_host.calibration.collect import calibrate
from builder_host.calibration.thresholds import find_calibrator
from builder_host.network.network import Network
from builder_host.passes import quantise
from builder_host.passes.pipeline import run_passes
from builder_host.precision.cost import unprofitable_layers
from builder_host.precision.rules import apply_precision
from builder_host.prediction import predict
from builder_host.targets.target import target_fingerprint, target_hardware
from runtime_edge.cli import main


def sensitive_network() -> Network:
    """Three convolutions; half of the channels between the first two are 3000 times as large.

    Per-tensor steps of 8 bits erase the small channels, whose weights in the second layer are
    3000 times as large: that layer cannot be quantised well.
    """
    network = Network("sensitive")
    x = network.add_input("x", (1, 8, 12, 12))
    scale = np.where(np.arange(16) < 8, 3000.0, 1.0).astype(np.float32)
    weights = random(16, 8, 3, 3, seed=1) * scale.reshape(16, 1, 1, 1)
    y = network.add_convolution(x, 16, 3, weights, random(16) * scale, pads=1, name="first").output
    y = network.add_activation(y, "relu").output
    weights = random(16, 16, 3, 3, seed=5) / scale.reshape(1, 16, 1, 1)
    y = network.add_convolution(y, 16, 3, weights, random(16), pads=1, name="second").output
    y = network.add_activation(y, "relu").output
    y = convolution(network, y, 10, seed=7, name="third")
    y = network.add_pooling(y, "average", 12).output
    network.mark_output(network.add_reshape(y, (1, 10)).output, "scores")
    return network


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(3).standard_normal((40, 8, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return bh.BuilderConfig(artifact_dir=tmp_path_factory.mktemp("artifacts"), num_threads=1)


def test_the_sensitive_layer_is_found_and_kept_in_float(samples, config):
    table = calibrate(sensitive_network(), samples, find_calibrator("min-max"), config=config)
    trade = trade_precision(sensitive_network(), table, samples, budget=0.03, config=config)
    assert trade.sensitivities[0].layer == "second"
    assert trade.sensitivities[0].error > 5 * trade.sensitivities[1].error
    losses = [p.loss for p in trade.points]
    assert losses[0] > 0.03 >= trade.chosen.loss
    assert trade.chosen.num_float >= 1
    assert trade.rules[0] == ("second", "fp32")
    last = trade.points[-1]
    assert (last.num_int8, last.loss, last.error) == (0, 0.0, 0.0)
    assert "<- chosen" in trade.text()
    root = ET.fromstring(trade_off_svg(trade))
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(trade.points)


def test_a_budget_that_allows_all_keeps_all_in_int8(samples, config):
    table = calibrate(sensitive_network(), samples, find_calibrator("min-max"), config=config)
    trade = trade_precision(sensitive_network(), table, samples, budget=1.0, config=config)
    assert trade.chosen.num_float == 0
    assert trade.rules == ()


def test_command_searches_and_builds(samples, tmp_path, capsys):
    pytest.importorskip("onnx")
    from support.cases import DATA, load

    digits = load("images/mnist/t10k_first1000.npz#images")[:60].reshape(-1, 1, 28, 28)
    np.savez(tmp_path / "digits.npz", x=digits.astype(np.float32))
    model = str(DATA / "onnx/mnist/mnist-8.onnx")
    common = ["build", model, "-o", str(tmp_path / "m.plan"), "--measure", "none"]
    data = ["--calibration-data", str(tmp_path / "digits.npz")]
    search = ["--accuracy-budget", "0.5%", "--trade-off", str(tmp_path / "t.svg")]
    assert main([*common, "--precision", "best", *data, *search]) == 0
    printed = capsys.readouterr().out
    assert "share of samples whose best class changes, 60 samples, budget 0.5 %" in printed
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    assert main([*common, "--precision", "int8", *data, *search]) == 1
    assert "needs --precision best" in capsys.readouterr().err
    assert main([*common, "--precision", "best", *data, *search[2:]]) == 1
    assert "give both" in capsys.readouterr().err
    assert main([*common, "--accuracy-budget", "7x"]) == 2
    assert main([*common, "--precision", "int8", "--json"]) == 1
    assert "needs dynamic ranges" in capsys.readouterr().err
    assert json.dumps(printed)


def test_layers_at_the_border_leave_int8_where_the_cost_model_says_so():
    network = Network()
    x = network.add_input("x", (1, 8, 6, 6))
    y = x
    for number in range(4):
        y = convolution(network, y, 8, seed=number, name=f"c{number}")
    network.mark_output(y)
    run_passes(network)
    ranges = {name: 4.0 for t in network.tensors() for name in network.names_of(t)}
    prices = {"c0": (5.0, 3.0), "c1": (5.0, 3.0), "c2": (2.0, 9.0), "c3": (2.0, 3.0)}  # int8, float

    def apply(one, rules):
        return apply_precision(one, "best", device_kind="cpu", ranges=ranges, layer_rules=rules)

    def cost_us(one):
        names = [y for y in one.layers if y.kind in quantise.PRODUCTS]
        return sum(prices[y.name][y.inputs[0].dtype.is_float] for y in names)

    # c0 goes, which makes c1 a border; c2 and c3 are faster in INT8
    assert unprofitable_layers(network, apply, cost_us) == (("c0", "fp32"), ("c1", "fp32"))
    assert kinds(network) == ["convolution"] * 4


def test_first_layer_stays_float16_on_a_gpu_where_the_cost_model_says_so():
    """Three channels fill no tensor-core tile, and quantising the image is a kernel of its own."""

    def predicted(precision):
        network = Network("first")
        x = network.add_input("x", (1, 3, 224, 224))
        y = convolution(network, x, 64, strides=2, name="first")
        y = network.add_activation(y, "relu").output
        for number in range(3):
            y = convolution(network, y, 256, seed=number, strides=2 - min(number, 1), name="wide")
            y = network.add_activation(y, "relu").output
        network.mark_output(network.add_pooling(y, "average", y.shape[2:]).output, "y")
        ranges = {name: 4.0 for t in network.tensors() for name in network.names_of(t)}
        config = bh.BuilderConfig(precision=precision, dynamic_ranges=ranges, measure="none")
        return predict(network, target_fingerprint("h200"), target_hardware("h200"), config)

    int8, best = predicted("int8"), predicted("best")
    assert best.latency_us < int8.latency_us
    assert [s.name for s in int8.steps[:2]] == ["x.i8", "first"]
    # in float16, by the kernel for few channels, which reads the float32 binding itself
    assert (best.steps[0].name, best.steps[0].family) == ("first", "cuda_conv_first")
    wide = [s.family for s in best.steps if s.name.startswith("wide")]
    assert wide == ["cuda_conv_int8"] * 3
