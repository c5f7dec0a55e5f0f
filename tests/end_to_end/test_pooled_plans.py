"""Plans of networks whose largest maps only a pooling reads: right results in smaller arenas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from support.cuda_toolkits import need_toolkit
from support.emulated_gpu import edgeplan_with_gpu
from support.pooled_networks import MODELS, VGG, YOLO, image, reference

import builder_host as bh
from builder_host.importers.onnx import import_onnx
from builder_host.tune.timing_cache import load_timing_cache
from planformat.reader import read_plan
from runtime_edge.cli import main

PEAKS = {
    # conv1_1's result and pool1's: 16 maps of 32x32, and 16 of 16x16.
    "vgg": 16 * 32 * 32 + 16 * 16 * 16,
    # pool1's result and pool2's: 16 maps of 16x16, and 32 of 8x8.
    "yolo": 16 * 16 * 16 + 32 * 8 * 8,
}
FUSED = {
    "vgg": ("conv1_2 + pool1", "conv2_2 + pool2"),
    "yolo": ("conv1_1 + pool1", "conv2_1 + pool2"),
}


def families(report: str) -> dict[str, str]:
    """Kernel family of each operation of a build."""
    rows = json.loads(report)["operations"]
    return {row["name"]: row["tactic"].partition("(")[0] for row in rows}


def arena_bytes(path: Path) -> int:
    """Of the plan's only profile, which reaches its lower bound."""
    (profile,) = read_plan(path.read_bytes()).variants[0].profiles
    assert profile.arena_bytes == profile.arena_lower_bound_bytes
    return profile.arena_bytes


@pytest.mark.parametrize("name", list(MODELS))
def test_cpu_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path, plan, x = tmp_path / "m.onnx", tmp_path / "m.plan", tmp_path / "x.npy"
    path.write_bytes(MODELS[name].SerializeToString())
    np.save(x, image())
    options = ["--measure", "none", "--threads", "1", "--json"]
    assert main(["build", str(path), "-o", str(plan), *options]) == 0
    chosen = families(capsys.readouterr().out)
    assert set(FUSED[name]) <= set(chosen), chosen
    assert "pooling" not in chosen.values()
    assert arena_bytes(plan) == 4 * PEAKS[name]
    assert main(["run", str(plan), "--input", f"x={x}", "--output-dir", str(tmp_path)]) == 0
    wanted = reference(MODELS[name], image())
    (result,) = (np.load(p) for p in tmp_path.glob("*.npy") if p != x)
    # Winograd sums err by up to 1e-4 of the largest value.
    assert np.abs(result - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", list(MODELS))
def test_gpu_plan(tmp_path: Path, name: str) -> None:
    need_toolkit()
    path, plan, x = tmp_path / "m.onnx", tmp_path / "m.plan", tmp_path / "x.npy"
    path.write_bytes(MODELS[name].SerializeToString())
    np.save(x, image())
    options = ("--target", "cuda", "--precision", "fp16", "--measure", "none", "--json")
    status, told, messages = edgeplan_with_gpu("build", path, "-o", plan, *options)
    assert status == 0, messages
    chosen = families(told)
    first, second = FUSED[name]
    assert chosen[first] == ("cuda_conv_pool" if name == "vgg" else "cuda_conv_first_pool")
    assert chosen[second] == "cuda_conv_pool"
    assert "cuda_pooling" not in chosen.values()
    assert arena_bytes(plan) == 2 * PEAKS[name]
    status, _, messages = edgeplan_with_gpu(
        "run", plan, "--input", f"x={x}", "--output-dir", tmp_path
    )
    assert status == 0, messages
    wanted = reference(MODELS[name], image())
    (result,) = (np.load(p) for p in tmp_path.glob("*.npy") if p != x)
    # Each of at most five layers rounds its operands and its result to 11 bits, at random signs.
    assert np.abs(result - wanted).max() <= 5 * 2 * 2.0**-11 * np.abs(wanted).max()


def test_a_plan_is_refitted_with_weights_that_turn_the_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of the other sign are only weights: nothing that was fused depends on them."""
    path, other, plan = tmp_path / "m.onnx", tmp_path / "n.onnx", tmp_path / "m.plan"
    path.write_bytes(VGG.SerializeToString())
    turned = ModelProto()
    turned.CopyFrom(VGG)
    for tensor in turned.graph.initializer:
        values = np.frombuffer(tensor.raw_data, np.float32)
        tensor.raw_data = (-values).tobytes()
    other.write_bytes(turned.SerializeToString())
    options = ["--measure", "none", "--threads", "1"]
    assert main(["build", str(path), "-o", str(plan), *options]) == 0
    assert main(["refit", str(plan), str(other), "-o", str(tmp_path / "n.plan")]) == 0
    x, out = tmp_path / "x.npy", tmp_path / "out"
    np.save(x, image())
    command = ["run", str(tmp_path / "n.plan"), "--input", f"x={x}", "--output-dir", str(out)]
    assert main(command) == 0
    capsys.readouterr()
    wanted = reference(turned, image())
    (result,) = (np.load(p) for p in out.glob("*.npy"))
    assert np.abs(result - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.slow
def test_the_faster_way_is_built(tmp_path: Path) -> None:
    """Both ways are timed; a cache that tells other times turns the choice, and strictly so."""
    network = import_onnx(YOLO.SerializeToString())
    path = tmp_path / "timings"
    config = bh.BuilderConfig(num_threads=1, timing_cache=path, artifact_dir=tmp_path / "a")
    measured = bh.build(network, config).report
    kinds = {key.problem.partition("|")[0] for key, _ in load_timing_cache(path)}
    assert {"pooled_convolution", "convolution", "pooling"} <= kinds
    assert measured.tuning.num_measured == measured.tuning.num_candidates
    strict = replace(config, is_strict_cache=True)
    for fused_us, wanted in ((1e6, {"conv1_1", "pool1"}), (1e-3, {"conv1_1 + pool1"})):
        cache = load_timing_cache(path)
        for key, timing in list(cache):
            if key.problem.startswith("pooled_convolution|"):
                cache.put(key, replace(timing, median_us=fused_us))
        cache.save(path)
        built = bh.build(network, strict)
        names = {row.name for row in built.report.operations}
        assert wanted <= names, names
        assert ("conv1_1" in names) == (fused_us == 1e6)
        assert built.report.tuning.num_measured == 0
        assert bh.build(network, strict).to_bytes() == built.to_bytes()
