"""Calibration of real networks: true ranges, whatever the batch size."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA, load

import builder_host as bh
from builder_host.calibration.collect import calibrate, collect_histograms
from builder_host.calibration.thresholds import CALIBRATORS
from builder_host.errors import BuilderError
from builder_host.network.evaluate import evaluate_network
from builder_host.passes.pipeline import run_passes

LENET = DATA / "caffe/lenet"


def lenet(batch: int = 1):
    return bh.import_caffe(
        LENET / "lenet.prototxt",
        LENET / "lenet_iter_9000.caffemodel",
        shapes={"data": (batch, 1, 28, 28)},
    )


@pytest.fixture(scope="module")
def digits():
    return load("images/mnist/t10k_first1000.npz#images")[:10].reshape(-1, 1, 28, 28) / 256


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return bh.BuilderConfig(artifact_dir=tmp_path_factory.mktemp("artifacts"), num_threads=1)


def test_ranges_are_those_of_the_reference(digits, config):
    table = calibrate(lenet(), digits, CALIBRATORS["min-max"], config=config)
    network = lenet(10)
    run_passes(network)
    keep = [t for t in network.tensors() if not t.is_constant and t not in network.outputs]
    values = evaluate_network(network, {"data": digits}, keep=keep)
    found = table.ranges
    assert set(found) == set(values) - {"ip1@ip1"} | {"ip1"}  # the ReLU's name counts
    for name, expected in values.items():
        key = "ip1" if name == "ip1@ip1" else name
        # ranges are rounded to 12 bits
        assert found[key] == pytest.approx(np.abs(expected).max(), rel=2.0**-12), name


@pytest.mark.parametrize("name", ["entropy", "entropy1"])
def test_batch_size_does_not_change_the_table(digits, config, name):
    tables = [
        calibrate(lenet(batch), source, CALIBRATORS[name], config=config).text()
        for batch, source in ((1, digits), (4, digits), (4, [digits[:7], digits[7:]]))
    ]
    assert tables[0] == tables[1] == tables[2]


def test_variants_observe_before_and_after_fusion(digits, config):
    before = collect_histograms(lenet(), digits, is_after_fusion=False, config=config)
    after = collect_histograms(lenet(), digits, is_after_fusion=True, config=config)
    assert set(after) < set(before)
    assert before["ip1@ip1"].has_negative  # in front of the ReLU
    assert not before["ip1"].has_negative
    assert before["conv1"].counts.tolist() == after["conv1"].counts.tolist()


def test_networks_of_many_large_tensors(config):
    """Each tensor is an output of the plan that runs; their canaries share one limit."""
    network = bh.Network("deep")
    y = network.add_input("x", (1, 8, 32, 32))
    for _ in range(80):
        y = network.add_activation(y, "leaky_relu", alpha=0.99).output
    network.mark_output(y)
    samples = np.random.default_rng(0).standard_normal((2, 8, 32, 32)).astype(np.float32)
    histograms = collect_histograms(network, samples, is_after_fusion=False, config=config)
    assert len(histograms) == 81
    assert all(h.num_values == samples.size for h in histograms.values())


def test_progress_counts_samples(digits, config):
    seen = []
    collect_histograms(lenet(4), digits, config=config, progress=lambda *step: seen.append(step))
    assert [s for s in seen if s[0] == "calibrate"] == [
        ("calibrate", done, 10) for done in (4, 8, 10)
    ]


def test_no_samples_and_values_that_are_not_finite(digits, config):
    with pytest.raises(BuilderError, match="no sample to calibrate with"):
        collect_histograms(lenet(), [], config=config)
    broken = digits.copy()
    broken[3, 0, 5, 5] = np.nan
    with pytest.raises(BuilderError, match="tensor 'data', sample 3: 1 of 784 values are NaN"):
        collect_histograms(lenet(), broken, config=config)
