"""A UFF file from the command line: built, run, batched; what is said about wrong options."""

from __future__ import annotations

import numpy as np
from support.cases import case, load, model_paths
from support.commands import edgeplan

MODEL, *_ = model_paths(case("uff/allcnn/digits"))
OPTIONS = ("--measure", "none", "--threads", 1)


def test_digits_in_both_orders_and_two_batches(tmp_path):
    digits = load("uff/allcnn/digits.in.npy").astype(np.float32)
    np.save(tmp_path / "first.npy", digits[3:4].transpose(0, 3, 1, 2))
    np.save(tmp_path / "last.npy", digits)
    edgeplan(
        *("build", MODEL, "-o", "first.plan", "--uff-input", "input_layer_1,1,28,28"),
        *OPTIONS,
        cwd=tmp_path,
    )
    edgeplan(
        *("build", MODEL, "-o", "last.plan", "--uff-input", "input_layer_1,28,28,1"),
        *("--uff-nhwc", "--batch", "1,10"),
        *OPTIONS,
        cwd=tmp_path,
    )
    expected = load("uff/allcnn/digits.out.AllCNN_Softmax.npy")
    for name, rows in (("first", expected[3:4]), ("last", expected)):
        edgeplan(
            *("run", f"{name}.plan", "--input", f"input_layer_1={name}.npy"),
            *("--output-dir", name),
            cwd=tmp_path,
        )
        (path,) = (tmp_path / name).glob("*.npy")
        np.testing.assert_allclose(np.load(path), rows, rtol=0, atol=1e-4)


def test_wrong_options_are_explained(tmp_path):
    done = edgeplan("build", MODEL, "-o", "x.plan", *OPTIONS, cwd=tmp_path, status=1)
    assert "--uff-input input_layer_1,C,H,W" in done.stderr
    done = edgeplan(
        *("build", MODEL, "-o", "x.plan", "--uff-input", "input_layer_1"),
        cwd=tmp_path,
        status=2,
    )
    assert "is not NAME,C,H,W" in done.stderr
    onnx = MODEL.parents[2] / "onnx" / "mnist" / "mnist-8.onnx"
    done = edgeplan(
        *("build", onnx, "-o", "x.plan", "--uff-nhwc"),
        cwd=tmp_path,
        status=1,
    )
    assert ".uff files" in done.stderr
