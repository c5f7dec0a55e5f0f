"""A built plan is tried before it is handed over: loaded once, every profile timed and recorded."""

from __future__ import annotations

import pytest
from support.cases import DATA

import builder_host as bh
import runtime_edge
from builder_host.tune.timing_cache import load_timing_cache

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")


def networks():
    return {
        f"batch{size}": bh.import_caffe(*LENET, shapes={"data": (size, 1, 28, 28)})
        for size in (1, 2)
    }


@pytest.fixture
def loads(monkeypatch):
    """What the runtime was asked to load."""
    asked, load = [], runtime_edge.load

    def counted(plan, **options):
        asked.append(plan)
        return load(plan, **options)

    monkeypatch.setattr(runtime_edge, "load", counted)
    return asked


def test_two_profiles_are_loaded_once_and_timed_once(tmp_path, loads):
    config = bh.BuilderConfig(num_threads=1, timing_cache=tmp_path / "t")
    built = bh.build(networks(), config)
    assert len(loads) == 1
    latencies = [p.canary.latency_us for p in built.plan.variants[0].profiles]
    assert all(latency > 0 for latency in latencies)
    plans = [key for key, _ in load_timing_cache(tmp_path / "t") if key.tactic == "plan"]
    assert len(plans) == 2
    assert {name.partition(":")[0] for name in built.report.accuracy} == {"prob", "batch2"}

    again = bh.build(networks(), config)
    assert len(loads) == 2
    assert [p.canary.latency_us for p in again.plan.variants[0].profiles] == latencies
    assert again.to_bytes() == built.to_bytes()
