"""SqueezeNet v1.1 on photographs: INT8 and float16 keep the classes of float32."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA, case, load, preprocessed

import builder_host as bh
import runtime_edge
from builder_host.calibration.collect import calibrate
from builder_host.calibration.thresholds import find_calibrator
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes import narrow_float
from builder_host.passes.pipeline import run_passes

TRUE = [281, 1, 270, 21]  # tabby cat, goldfish, Alaskan tundra wolf, kite


def squeezenet() -> Network:
    folder = DATA / "caffe/squeezenet_v1.1"
    return bh.import_caffe(
        folder / "deploy.prototxt",
        folder / "squeezenet_v1.1_fp16w.caffemodel",
        shapes={"data": (1, 3, 227, 227)},
    )


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """The reference case's four, as network inputs."""
    one = case("caffe/squeezenet_v1.1/four")
    return preprocessed(one, load(one.inputs["data"]))


def shifted(images: np.ndarray, count: int) -> np.ndarray:
    """Variations: moved by up to 16 pixels, mirrored, contrast of 80 to 120 %."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        image = np.roll(images[number % len(images)], rng.integers(-16, 17, 2), axis=(1, 2))
        image = image[:, :, ::-1] if rng.random() < 0.5 else image
        found.append(image * rng.uniform(0.8, 1.2))
    return np.stack(found).astype(np.float32)


@pytest.mark.slow
def test_int8_keeps_the_classes(photographs, tmp_path):
    """Calibrated on variations of the pictures: the true class stays first but for a close call."""
    table = calibrate(squeezenet(), shifted(photographs, 24), find_calibrator("entropy"))
    config = {"measure": "none", "artifact_dir": tmp_path}
    contexts = [
        runtime_edge.load(bh.build(squeezenet(), one).to_bytes()).create_context()
        for one in (
            bh.BuilderConfig(**config),
            bh.BuilderConfig(precision="int8", calibration=table, **config),
        )
    ]
    exact, quantised = (
        np.stack([c.execute({"data": x[None]})["prob"].reshape(-1).copy() for x in photographs])
        for c in contexts
    )
    for before, after, true in zip(exact, quantised, TRUE, strict=True):
        best = np.argsort(-after)[:2]
        assert true in best
        lead = np.sort(before)[-1] - np.sort(before)[-2]
        assert best[0] == true or lead < 0.1  # the cat: two breeds nearly equal in float32
    # noise of the scores: 20 dB below them, as docs/precision.md has it for this network
    assert np.linalg.norm(exact - quantised) < 0.1 * np.linalg.norm(exact)


@pytest.mark.slow
def test_float16_storage_keeps_the_scores(photographs):
    network = squeezenet()
    inputs = [{"data": x[None]} for x in photographs]
    exact = [evaluate_network(network, one)["prob"].reshape(-1) for one in inputs]
    run_passes(network)
    narrow_float.run(network)
    narrow = [
        evaluate_network(network, one, rounds_storage=True)["prob"].reshape(-1) for one in inputs
    ]
    assert [int(row.argmax()) for row in narrow] == TRUE
    for a, b in zip(exact, narrow, strict=True):
        # some 30 roundings of 2^-12 in a row, of scores that a softmax makes up to 10 times as
        # sensitive: below 1 % of the score
        assert np.abs(a - b).max() < 0.01
