"""Models that come quantised, as CPU plans, against the outputs that ONNX Runtime gave."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA, case, load

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
