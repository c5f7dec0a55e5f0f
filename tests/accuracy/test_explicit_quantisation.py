"""Models that come quantised, as CPU plans, against the outputs that ONNX Runtime gave."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from support.cases import DATA, case, load
from support.onnx_models import model

import builder_host as bh
import runtime_edge


@pytest.mark.slow
def test_quantised_shufflenet_repeats_onnxruntime_bit_by_bit(tmp_path):
    """57 integer layers; every sum is exact and every rounding falls to the same side."""
    one = case("onnx/classify/shufflenet_int8")
    config = bh.BuilderConfig(measure="none", artifact_dir=tmp_path)
    built = bh.build(bh.import_onnx(DATA / one.models[0]), config)
    context = runtime_edge.load(built.to_bytes()).create_context()
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in
                 ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))  # fmt: skip
    pixels = load(one.inputs["input"]).astype(np.float32)
    images = (pixels / np.float32(255) - mean) / std
    expected = load(one.outputs["output"]).reshape(len(images), -1)
    for image, wanted in zip(images, expected, strict=True):
        scores = context.execute({"input": image[None]})["output"].reshape(-1)
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    assert expected.argmax(axis=1).tolist() == [278, 1, 270, 22, 348, 250]


def test_dequantised_constant_feeds_a_float_convolution(tmp_path):
    one = case("onnx/trt_polygraphy/qdq_conv")
    config = bh.BuilderConfig(measure="none", artifact_dir=tmp_path)
    built = bh.build(bh.import_onnx(DATA / one.models[0]), config)
    (got,) = runtime_edge.load(built.to_bytes()).create_context().execute({}).values()
    (expected,) = (load(file) for file in one.outputs.values())
    np.testing.assert_allclose(
        got.reshape(expected.shape), expected, rtol=0, atol=max(one.atol, 1e-6)
    )


@pytest.mark.parametrize("block", [4, 5, 11])
def test_weights_with_a_scale_per_block_as_onnxruntime_has_them(tmp_path, block):
    """Blocks along the summed axis of 11; the last one is short, or there is one only."""
    rng = np.random.default_rng(block)
    count = -(-11 // block)
    known = {
        "q": rng.integers(-128, 128, (11, 6)).astype(np.int8),
        "scale": rng.uniform(0.01, 0.1, (count, 6)).astype(np.float32),
        "zero": rng.integers(-5, 6, (count, 6)).astype(np.int8),
    }
    blocks = {"axis": 0, "block_size": block}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], **blocks),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    whole = model(nodes, {"x": (3, 11)}, ["y"], known, opset=21)
    whole.ir_version = 10
    x = rng.normal(0, 1, (3, 11)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(whole.SerializeToString()).run(None, {"x": x})
    plan = bh.build(bh.import_onnx(whole), bh.BuilderConfig(measure="none", artifact_dir=tmp_path))
    got = runtime_edge.load(plan.to_bytes()).create_context().execute({"x": x})["y"]
    # 11 products of magnitudes up to 13 each, in float32
    np.testing.assert_allclose(got, want, rtol=0, atol=11 * 13 * 2.0**-22)


def test_blocks_that_do_not_fit_are_refused():
    known = {"scale": np.ones((2, 6), np.float32)}
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], axis=0, block_size=4)
    with pytest.raises(bh.BuilderError, match=r"does not fit blocks of 4 along axis 0 .*\[3, 6\]"):
        bh.import_onnx(model([node], {"x": (11, 6)}, ["y"], known, opset=21))
