"""What a user types: build, inspect, run, bench, sign, verify, probe; and what goes wrong."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from support.cases import DATA, case, load, preprocessed
from support.commands import edgeplan

MNIST = DATA / "onnx" / "mnist" / "mnist-8.onnx"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with mnist.plan, measured here, and its timing cache."""
    folder = tmp_path_factory.mktemp("built")
    done = edgeplan(
        *("build", MNIST, "-o", "mnist.plan", "--timing-cache", "t.cache", "--threads", 1),
        *("--report", "r.json", "--trace", "trace"),
        cwd=folder,
    )
    assert "relative L2 error" in done.stdout
    return folder


def test_report_and_trace_are_written(built):
    report = json.loads((built / "r.json").read_text())
    assert report["operations"]
    assert all(row["measured_us"] > 0 for row in report["operations"])
    assert report["arena_bytes"] >= report["arena_lower_bound_bytes"] > 0
    names = sorted(path.name for path in (built / "trace").iterdir())
    assert names[0].startswith("00-imported")
    assert "layout_assignment" in names[-1]


def test_same_cache_gives_the_same_bytes_in_another_folder(built, tmp_path):
    (tmp_path / "t.cache").write_bytes((built / "t.cache").read_bytes())
    (tmp_path / "home").mkdir()
    edgeplan(
        *("build", MNIST, "-o", "again.plan", "--timing-cache", "t.cache", "--threads", 1),
        "--strict-cache",
        cwd=tmp_path,
    )
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (built / "mnist.plan", tmp_path / "again.plan")
    }
    assert len(digests) == 1


def test_strict_build_without_the_timings_names_what_is_missing(tmp_path):
    (tmp_path / "t.cache").write_text('{"format": "edgeplan-timing-cache", "version": 1}\n')
    done = edgeplan(
        *("build", MNIST, "-o", "x.plan", "--timing-cache", "t.cache", "--strict-cache"),
        cwd=tmp_path,
        status=1,
    )
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("edgeplan build: strict build: the timing cache lacks")
    assert not (tmp_path / "x.plan").exists()


def test_run_gives_the_outputs_of_the_model_zoo(built, tmp_path):
    one = case("onnx/mnist/test_data_0")
    values = preprocessed(one, load(one.inputs["Input3"]))
    np.save(tmp_path / "in.npy", values)
    edgeplan(
        *("run", built / "mnist.plan", "--input", "Input3=in.npy", "--output-dir", "out"),
        cwd=tmp_path,
    )
    (output,) = (tmp_path / "out").iterdir()
    np.testing.assert_allclose(
        np.load(output), load(one.outputs["Plus214_Output_0"]), rtol=0, atol=one.atol
    )


def test_bench_reports_latency(built):
    done = edgeplan(
        *("bench", "mnist.plan", "--duration", 0.2, "--streams", 2, "--json"), cwd=built
    )
    figures = json.loads(done.stdout)
    latency = figures["latency_us"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
    assert figures["streams"] == 2
    assert figures["runs"] >= 2


def test_inspect_and_probe_agree_about_the_device(built):
    plan = json.loads(edgeplan("inspect", "mnist.plan", "--json", cwd=built).stdout)
    probed = json.loads(edgeplan("probe", "--json", cwd=built).stdout)
    assert probed["fields"]["cpu.model"] in json.dumps(plan, ensure_ascii=False)


def test_sign_and_verify(built, tmp_path):
    edgeplan("keygen", "release", cwd=tmp_path)
    keys = sorted(path.name for path in tmp_path.iterdir())
    public = next(name for name in keys if "pub" in name)
    private = next(name for name in keys if name != public)
    (tmp_path / "mnist.plan").write_bytes((built / "mnist.plan").read_bytes())
    edgeplan("verify", "mnist.plan", cwd=tmp_path)
    edgeplan("verify", "mnist.plan", "--key", public, cwd=tmp_path, status=1)
    edgeplan("sign", "mnist.plan", "--key", private, cwd=tmp_path)
    edgeplan("verify", "mnist.plan", "--key", public, cwd=tmp_path)
    data = bytearray((tmp_path / "mnist.plan").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mnist.plan").write_bytes(data)
    done = edgeplan("verify", "mnist.plan", "--key", public, cwd=tmp_path, status=1)
    assert "section" in done.stderr


def test_a_plan_for_another_device_is_refused_with_the_fields(built, tmp_path):
    probed = json.loads(edgeplan("probe", "--json", cwd=tmp_path).stdout)
    probed["fields"]["cpu.model"] = "Some Other CPU"
    probed["fields"]["cpu.l2_bytes"] = "4096"
    (tmp_path / "other.json").write_text(json.dumps(probed))
    edgeplan(
        *("build", MNIST, "-o", "other.plan", "--target", "other.json", "--measure", "none"),
        *("--threads", 1),
        cwd=tmp_path,
    )
    np.save(tmp_path / "in.npy", np.zeros((1, 1, 28, 28), np.float32))
    done = edgeplan("run", "other.plan", "--input", "Input3=in.npy", cwd=tmp_path, status=1)
    assert "cpu.model" in done.stderr
    assert "cpu.l2_bytes" in done.stderr
    assert "Some Other CPU" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["build", "nowhere.onnx", "-o", "x.plan"], 1, "nowhere.onnx"),
        (["build"], 2, "usage"),
        (["build", MNIST, "-o", "x.plan", "--shapes", "bad"], 2, "NAME:1x3x224x224"),
        (["build", MNIST, "-o", "x.plan", "--target", "toaster"], 1, "toaster"),
        (["run", "nowhere.plan"], 1, "nowhere.plan"),
        (["fly"], 2, "fly"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, status, message, tmp_path):
    done = edgeplan(*arguments, cwd=tmp_path, status=status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
