"""Precision rules of a build: what is accepted, what reaches kernels, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import make_target
from support.cuda_toolkits import need_toolkit
from support.networks import convolution
from support.typed_kernels import store_of_the_run

import builder_host as bh
from builder_host.calibration.table import CalibrationTable
from builder_host.lowering.draft import make_draft
from builder_host.network.network import Network
from builder_host.passes.pipeline import run_passes
from builder_host.precision.rules import apply_precision, parse_rules
from builder_host.targets.backend import make_backend
from planformat.fingerprint import DeviceFingerprint


@pytest.fixture
def network():
    network = Network()
    x = network.add_input("x", (1, 8, 10, 10))
    y = network.add_activation(convolution(network, x, 8, name="conv1"), "relu").output
    network.mark_output(convolution(network, y, 8, seed=2, name="head/conv"), "y")
    return network


def cuda_draft(network, **options):
    target = make_target("87")
    fields = {
        "cuda.compute_capability": "8.7", "cuda.cuda_version": "12.6",
        "cuda.num_sms": str(target.num_sms),
    }  # fmt: skip
    need_toolkit()
    store = store_of_the_run()
    backend = make_backend(
        DeviceFingerprint("cuda", fields), compiler="zig", artifact_dir=store.root, jobs=1
    )
    config = bh.BuilderConfig(is_checked=False, measure="none", **options)
    return make_draft("p", network, config, backend, num_workers=1, trace=None)


def test_tf32_marks_products_and_nothing_else(network):
    draft = cuda_draft(network, precision="tf32", layer_precision=(("head/*", "fp32"),))
    marks = {op.name: op.problem.math for op in draft.operations}
    assert marks["conv1"] == "tf32"
    assert marks["head/conv"] == ""
    assert [m for m in marks.values() if m] == ["tf32"]
    assert draft.precision.storage == "tf32"
    (problem,) = [op.problem for op in draft.operations if op.problem.math]
    exact = {op.name: op.problem for op in cuda_draft(network).operations}["conv1"]
    assert problem.text() == exact.text() + "|tf32"  # other timings, and those of fp32 stay valid


def test_rules_are_parsed_in_order():
    assert parse_rules("conv1=fp32, *head*=fp16,a=b=int8") == (
        ("conv1", "fp32"), ("*head*", "fp16"), ("a=b", "int8"),
    )  # fmt: skip
    assert parse_rules("") == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision is 'int4'; expected one of fp32, tf32, fp16"),
        ({"layer_precision": (("a", "fp64"),)}, "precision 'fp64' for 'a' is unknown"),
        ({"tensor_precision": (("a", "bf16"),)}, "precision 'bf16' for 'a' is unknown"),
        ({"dynamic_ranges": {"x": 0.0}}, "dynamic range of 'x' is 0.0"),
        ({"dynamic_ranges": {"x": float("nan")}}, "dynamic range of 'x' is nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(bh.BuilderError, match=message):
        bh.BuilderConfig(**options)


@pytest.mark.parametrize(
    ("precision", "device", "ranges", "message"),
    [
        ("fp16", "cpu", None, "precision fp16 needs a CUDA target"),
        ("tf32", "cpu", None, "precision tf32 needs a CUDA target"),
        ("int8", "cpu", None, "precision int8 needs dynamic ranges"),
        ("int8", "cpu", {"other": 1.0}, "no layer could be quantised.*'x'.*made for this model"),
    ],
)
def test_what_a_target_cannot_do(network, precision, device, ranges, message):
    run_passes(network)
    with pytest.raises(bh.BuilderError, match=message):
        apply_precision(network, precision, device_kind=device, ranges=ranges)


def test_networks_without_products_are_not_quantised():
    network = Network()
    network.mark_output(network.add_softmax(network.add_input("x", (1, 4))).output)
    with pytest.raises(bh.BuilderError, match="no layer that can be computed in INT8"):
        apply_precision(network, "int8", device_kind="cpu", ranges={"x": 1.0})


def test_ranges_of_users_count_before_the_table(tmp_path):
    table = CalibrationTable("H", {"a": 1.0, "b": 2.0})
    config = bh.BuilderConfig(calibration=table, dynamic_ranges={"b": 127.0})
    assert config.table().ranges == {"a": 127.0, "b": 127.0}
    table.save(tmp_path / "t")
    assert bh.BuilderConfig(calibration=tmp_path / "t").table() == table
    assert bh.BuilderConfig().table() is None
    assert bh.BuilderConfig(dynamic_ranges={"b": 127.0}).table().scales == {"b": 1.0}


def test_report_says_what_stayed_in_float(network, tmp_path):
    config = bh.BuilderConfig(
        precision="int8", dynamic_ranges={"x": 3.0}, measure="none", artifact_dir=tmp_path
    )
    report = bh.build(network, config).report
    assert report.precision == (
        "1 layer multiplies 8-bit integers",
        "stayed in float for want of a dynamic range: 'conv1'",
    )
    assert "precision: stayed in float for want of a dynamic range: 'conv1'" in report.text()


@pytest.mark.parametrize("precision", ["int8", "best"])
def test_profiles_of_two_batch_sizes_give_one_result(tmp_path, precision):
    """One table, two batch sizes: scales and choices are those of the first."""

    def one(batch):
        network = Network("n")
        x = network.add_input("x", (batch, 8, 10, 10))
        network.mark_output(convolution(network, x, 16, name="conv"), "y")
        return network

    config = bh.BuilderConfig(
        precision=precision, dynamic_ranges={"x": 3.0}, measure="none", artifact_dir=tmp_path
    )
    import runtime_edge

    built = bh.build({"one": one(1), "three": one(3)}, config)
    engine = runtime_edge.load(built.to_bytes())
    x = np.random.default_rng(0).standard_normal((3, 8, 10, 10)).astype(np.float32)
    together = engine.create_context(profile="three").execute({"x": x})["y"]
    single = engine.create_context(profile="one")
    alone = np.concatenate([single.execute({"x": x[i : i + 1]})["y"] for i in range(3)])
    np.testing.assert_array_equal(together, alone)
