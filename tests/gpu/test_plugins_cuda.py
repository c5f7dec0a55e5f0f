"""Plugins on a real GPU: their kernels are timed, chosen and compared with float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import builder_host as bh
import runtime_edge as rt
from builder_host.network.evaluate import evaluate_network
from builder_host.plugins import load_plugins

pytestmark = pytest.mark.gpu

PLUGINS = Path(__file__).resolve().parents[2] / "examples" / "plugins"
RNG = np.random.default_rng(3)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_yolov2_head_with_plugins(precision, limit):
    network = bh.import_caffe(
        PLUGINS / "yolov2_head.prototxt", plugins=load_plugins([PLUGINS / "yolov2.py"])
    )
    inputs = {
        tensor.name: RNG.standard_normal(tensor.shape).astype(np.float32)
        for tensor in network.inputs
    }
    built = bh.build(network, bh.BuilderConfig(target="cuda", precision=precision, measure="local"))
    rows = [row for row in built.report.operations if row.kind == "plugin"]
    assert len(rows) == 2
    assert all(row.measured_us is not None and row.measured_us > 0 for row in rows)
    with rt.load(built.to_bytes()) as engine, engine.create_context() as context:
        boxes = np.array(context.execute(inputs)["boxes"], np.float64)
    expected = evaluate_network(network, inputs)["boxes"]
    error = np.linalg.norm(boxes - expected) / np.linalg.norm(expected)
    for row in rows:
        print(f"{precision} {row.name}: {row.tactic} {row.measured_us:.2f} us")
    print(f"{precision}: relative L2 error {error:.1e}")
    assert error < limit
