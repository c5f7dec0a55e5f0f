"""A prediction is what a build without timings makes, without a compiler."""

from __future__ import annotations

import pytest
from support.cases import DATA

import builder_host as bh
from builder_host.errors import TargetError
from builder_host.prediction import predict
from builder_host.targets.target import target_fingerprint, target_hardware
from planformat.fingerprint import DeviceFingerprint

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")
ONE = {"data": (1, 1, 28, 28)}
ORIN = target_fingerprint("jetson-agx-orin")
HARDWARE = target_hardware("jetson-agx-orin")


def test_steps_and_arena_are_those_of_a_build(tmp_path):
    from runtime_edge.probe import probe_device

    network = bh.import_caffe(*LENET, shapes=ONE)
    config = bh.BuilderConfig(measure="none", num_threads=1, is_checked=False)
    built = bh.build(network, config)
    found = predict(network, probe_device(), {}, config)
    rows = [(row.name, row.tactic.partition("(")[0]) for row in built.report.operations]
    assert [(step.name, step.family) for step in found.steps] == rows
    assert found.arena.arena_bytes == built.report.arena_bytes
    assert found.arena.lower_bound_bytes == built.report.arena_lower_bound_bytes
    told = sum(row.predicted_us for row in built.report.operations)
    assert found.latency_us == pytest.approx(told)


def test_a_board_that_is_not_here_needs_no_toolkit(monkeypatch):
    from builder_host.codegen import toolchain_cuda

    def refused(*_arguments, **_options):
        raise AssertionError("a prediction asks for no toolkit")

    monkeypatch.setattr(toolchain_cuda, "load_toolkit", refused)
    config = bh.BuilderConfig(precision="fp16", measure="none")
    network = bh.import_caffe(*LENET, shapes=ONE)
    found = predict(network, ORIN, HARDWARE, config)
    # weights of LeNet: 430,500 and 580 biases; products: 2.3 million multiply-adds
    assert 2 * 430_500 <= found.constant_bytes <= 4 * 431_080
    assert 2 * 2_293_000 <= found.num_operations < 1.1 * 2 * 2_293_000
    assert 0 < found.latency_us < 1000
    half = predict(network, ORIN, {**HARDWARE, "core_clock_hz": 650_250_000}, config)
    assert half.latency_us > found.latency_us


def test_a_device_without_kernels_is_refused():
    nothing = DeviceFingerprint("cuda", {"cuda.compute_capability": "3.5"})
    with pytest.raises(TargetError, match=r"compute capability 3\.5"):
        predict(bh.import_caffe(*LENET, shapes=ONE), nothing, {}, bh.BuilderConfig(measure="none"))
