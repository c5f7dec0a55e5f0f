"""INT8 by entropy calibration against float32, through the commands: what is lost on real data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.cases import DATA, load

import builder_host as bh
import runtime_edge
from builder_host.calibration.collect import calibrate
from builder_host.calibration.thresholds import find_calibrator
from runtime_edge.cli import main

MNIST = DATA / "images/mnist/t10k_first1000.npz"
LENET = [str(DATA / "caffe/lenet" / f) for f in ("lenet.prototxt", "lenet_iter_9000.caffemodel")]


def edgeplan(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


@pytest.mark.parametrize(
    ("model", "scale", "options", "float_right"),
    [
        (LENET, 256.0, ["--shapes", "data:1x1x28x28"], 990),
        ([str(DATA / "onnx/mnist/mnist-8.onnx")], 1.0, [], 987),
    ],
    ids=["lenet", "mnist-8"],
)
def test_entropy_loses_less_than_half_a_point_on_mnist(
    tmp_path, capsys, model, scale, options, float_right
):
    """1000 digits; calibrated with the first 100, and again from the table that this wrote."""
    images = load("images/mnist/t10k_first1000.npz#images").reshape(-1, 1, 28, 28)
    np.savez(tmp_path / "all.npz", x=images.astype(np.float32) / np.float32(scale))
    table, plan, again = tmp_path / "t.cache", tmp_path / "a.plan", tmp_path / "b.plan"
    common = [*options, "--precision", "int8", "--measure", "none", "--calibration", table]
    edgeplan(
        "build", *model, "-o", plan, *common,
        "--calibration-data", tmp_path / "all.npz", "--samples", 100,
    )  # fmt: skip
    edgeplan("build", *model, "-o", again, *common)
    assert plan.read_bytes() == again.read_bytes()
    capsys.readouterr()
    edgeplan("evaluate", plan, "--images", tmp_path / "all.npz", "--labels", MNIST, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["num_samples"] == 1000
    right = round(1000 * result["top1"])
    assert float_right - right < 5, f"{right} of 1000 right, float32 has {float_right}"


def jittered(images: np.ndarray, count: int) -> np.ndarray:
    """Copies of pictures moved by up to three pixels, mirrored, with noise of up to 6 levels."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        image = images[number % len(images)].astype(np.float32)
        image = np.roll(image, rng.integers(-3, 4, 2), axis=(1, 2))
        if rng.random() < 0.5:
            image = image[:, :, ::-1]
        found.append(np.clip(image + rng.normal(0, rng.uniform(0, 6), image.shape), 0, 255))
    return np.rint(np.stack(found)).astype(np.uint8)


def test_samplenet_keeps_its_classes(tmp_path):
    """400 variations of three pictures: INT8 gives the class of float32 but for close calls.

    A close call is a lead of the best score over the second of less than twice the error that
    INT8 makes on average: of those either may win.
    """
    folder = DATA / "caffe/samplenet"
    model = lambda: bh.import_caffe(  # noqa: E731
        folder / "SampLeNet.prototxt", folder / "SampLeNet.caffemodel"
    )
    known = [
        load("caffe/samplenet/two.in.npy"),
        load("caffe/samplenet/cifar10-test-data-class3.npz#arr_0"),
    ]
    pixels = jittered(np.concatenate(known), 500)
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in
                 ([125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]))  # fmt: skip
    images = (pixels.astype(np.float32) - mean) / std
    table = calibrate(model(), images[:100], find_calibrator("entropy"))
    scores = []
    for options in ({}, {"precision": "int8", "calibration": table}):
        config = bh.BuilderConfig(measure="none", artifact_dir=tmp_path, **options)
        context = runtime_edge.load(bh.build(model(), config).to_bytes()).create_context()
        rows = [next(iter(context.execute({"data": x[None]}).values())) for x in images[100:]]
        scores.append(np.stack([np.array(r).reshape(-1) for r in rows]))
    exact, quantised = scores
    error = np.sqrt(np.mean((exact - quantised) ** 2))
    assert error < 0.05 * np.std(exact)
    ordered = np.sort(exact, axis=1)
    is_clear = ordered[:, -1] - ordered[:, -2] > 2 * error
    agrees = exact.argmax(axis=1) == quantised.argmax(axis=1)
    assert is_clear.mean() > 0.9
    assert (~agrees[is_clear]).sum() < 0.005 * len(agrees)
