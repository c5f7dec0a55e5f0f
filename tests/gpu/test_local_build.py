"""Building for this machine's own GPU: candidates are timed here, the plan is tried here."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA

import builder_host as bh
import runtime_edge as rt

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_candidates_are_timed_and_the_plan_is_checked(precision, tmp_path):
    network = bh.import_onnx(DATA / "onnx" / "mnist" / "mnist-8.onnx")
    config = bh.BuilderConfig(
        target="cuda", precision=precision, timing_cache=tmp_path / "t.cache", artifact_dir=tmp_path
    )
    built = bh.build(network, config)
    assert built.report.tuning.num_measured == built.report.tuning.num_candidates > 0
    assert built.report.latency_us is not None
    assert all(error < 1e-2 for error in built.report.accuracy.values())
    built.save(tmp_path / "m.plan")
    x = np.load(DATA / "onnx" / "mnist" / "test_data_0.in.npy")
    y = np.load(DATA / "onnx" / "mnist" / "test_data_0.out.npy")
    with rt.load(tmp_path / "m.plan") as engine, engine.create_context() as context:
        (out,) = context.execute({engine.bindings[0].name: x}).values()
    assert engine.device.kind == "cuda"
    np.testing.assert_allclose(out, y, rtol=2e-2, atol=2e-2 * np.abs(y).max())
    strict = bh.BuilderConfig(
        target="cuda",
        precision=precision,
        timing_cache=tmp_path / "t.cache",
        is_strict_cache=True,
        artifact_dir=tmp_path,
    )
    again = bh.build(bh.import_onnx(DATA / "onnx" / "mnist" / "mnist-8.onnx"), strict)
    assert again.to_bytes() == built.to_bytes()
