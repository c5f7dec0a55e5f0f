"""The command line, end to end in this process."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
from support import tiny_plans

from planformat.fingerprint import DeviceFingerprint, fingerprint_from_json
from planformat.writer import save_plan
from runtime_edge import cli, probe_device

X = np.arange(1000, dtype=np.float32).reshape(1, 1000)


@pytest.fixture
def edgeplan(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder with `tiny.plan`: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    save_plan(tiny_plans.plan(), "tiny.plan")
    np.save("x.npy", X)

    def run(*arguments: str):
        status = cli.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_overview_lists_commands_with_their_summary(edgeplan):
    status, out, _ = edgeplan("--help")
    assert status == 0
    for name in ("run", "bench", "inspect", "verify", "sign", "keygen", "probe"):
        assert f"\n  {name} " in out
    assert "Print the fingerprint of this device." in out


def test_wrong_usage(edgeplan):
    assert edgeplan()[0] == 2
    status, _, err = edgeplan("insepct", "tiny.plan")
    assert status == 2
    assert "did you mean 'inspect'" in err
    assert edgeplan("inspect")[0] == 2
    assert edgeplan("bench", "tiny.plan", "--streams", "0")[0] == 2
    assert edgeplan("bench", "tiny.plan", "--duration", "-1")[0] == 2


def test_builder_command_without_the_builder(edgeplan, monkeypatch):
    monkeypatch.setattr(cli, "_PACKAGES", ("runtime_edge.cli", "no_such_package.cli"))
    status, _, err = edgeplan("build", "m.onnx")
    assert status == 2
    assert "pip install 'edgeplan[builder]'" in err


def test_run(edgeplan, tmp_path):
    status, out, _ = edgeplan("run", "tiny.plan", "--input", "x=x.npy", "--output-dir", "out/d")
    assert status == 0
    assert "y: float32 1x1000, 3 to 502.5, largest at 999" in out
    assert np.array_equal(np.load("out/d/y.npy"), X * np.float32(0.5) + np.float32(3))
    status, out, _ = edgeplan("run", "tiny.plan", "--input", "x=x.npy", "--json")
    report = json.loads(out)
    assert report["outputs"] == [
        {
            "name": "y",
            "dtype": "float32",
            "shape": [1, 1000],
            "min": 3.0,
            "max": 502.5,
            "argmax": 999,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.plan"], "input 'x' is missing"),
        (["tiny.plan", "--input", "x"], "--input x: expected NAME=FILE.npy"),
        (["tiny.plan", "--input", "x=none.npy"], "No such file"),
        (["tiny.plan", "--input", "x=tiny.plan"], "not a .npy file"),
        (["tiny.plan", "--input", "x=x.npy", "--input", "x=x.npy"], "'x' is given twice"),
        (["tiny.plan", "--input", "x=x.npy", "--profile", "p"], "no profile 'p'; it has fast, sl"),
        (["none.plan", "--input", "x=x.npy"], "plan none.plan: cannot be opened"),
        (["x.npy", "--input", "x=x.npy"], "plan x.npy: header, byte 0: magic is"),
    ],
)
def test_run_refuses_in_one_line(edgeplan, arguments, message):
    status, out, err = edgeplan("run", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert err.startswith("edgeplan run: ")
    assert err.count("\n") == 1


def test_bench(edgeplan):
    status, out, _ = edgeplan(
        "bench", "tiny.plan", "--streams", "2", "--threads", "1", "--duration", "0.05", "--json"
    )
    assert status == 0
    report = json.loads(out)
    assert report["streams"] == 2
    assert report["threads"] == 1
    assert report["runs"] >= 2
    latency = report["latency_us"]
    assert latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
    assert report["inferences_per_s"] > 0
    status, out, _ = edgeplan("bench", "tiny.plan", "--duration", "0.05", "--steps")
    assert status == 0
    assert "throughput: " in out
    assert "scale0  t0" in out


def test_inspect(edgeplan):
    status, out, _ = edgeplan("inspect", "tiny.plan")
    assert status == 0
    assert "in  x: f32 1x1000" in out
    assert "2 steps for 1 threads" in out
    status, out, _ = edgeplan("inspect", "tiny.plan", "--json")
    report = json.loads(out)
    assert [s["kind"] for s in report["sections"]] == ["manifest", "chunks", "weights", "code"]
    profile = report["variants"][0]["profiles"][0]
    assert [s["symbol"] for s in profile["steps"]] == ["scale", "shift"]
    assert profile["canary_latency_us"] == 12.5


def test_keygen_sign_verify(edgeplan, tmp_path):
    assert edgeplan("keygen", "fleet")[0] == 0
    assert edgeplan("keygen", "other")[0] == 0
    assert stat.S_IMODE((tmp_path / "fleet.key").stat().st_mode) == 0o600
    status, _, err = edgeplan("keygen", "fleet")
    assert status == 1
    assert "is not overwritten" in err
    status, _, err = edgeplan("verify", "tiny.plan", "--key", "fleet.pub")
    assert status == 1
    assert "the plan has none" in err
    assert edgeplan("sign", "tiny.plan", "--key", "fleet.key", "-o", "signed.plan")[0] == 0
    status, out, _ = edgeplan("verify", "signed.plan", "--key", "fleet.pub", "--json")
    assert (status, json.loads(out)["signature"]) == (0, "good")
    assert json.loads(edgeplan("verify", "signed.plan", "--json")[1])["signature"].startswith("pre")
    assert edgeplan("verify", "signed.plan", "--key", "other.pub")[0] == 1
    assert edgeplan("bench", "signed.plan", "--key", "other.pub", "--duration", "0.01")[0] == 1
    assert edgeplan("sign", "tiny.plan", "--key", "fleet.pub")[0] == 1
    assert edgeplan("sign", "tiny.plan", "--key", "other.key")[0] == 0  # in place
    status, _, err = edgeplan("sign", "tiny.plan", "--key", "other.key", "-o", "absent/x.plan")
    assert status == 1
    assert "absent/x.plan: cannot be written" in err
    assert edgeplan("verify", "tiny.plan", "--key", "other.pub")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_verify(edgeplan):
    status, out, _ = edgeplan("verify", "tiny.plan", "--device")
    assert status == 0
    assert "tiny.plan: sound, format 1.1, " in out
    assert "variant 0 is for this device" in out
    fields = {**probe_device().fields, "cpu.model": "Another 1/2/3"}
    save_plan(tiny_plans.plan(fingerprint=DeviceFingerprint("cpu", fields)), "other.plan")
    assert edgeplan("verify", "other.plan")[0] == 0
    status, _, err = edgeplan("verify", "other.plan", "--device")
    assert status == 1
    assert "cpu.model: the plan has 'Another 1/2/3'" in err


def test_probe(edgeplan):
    status, out, _ = edgeplan("probe", "--json")
    assert status == 0
    assert fingerprint_from_json(out) == probe_device()
    assert "cpu.architecture: " in edgeplan("probe")[1]


def test_defects_are_not_disguised_as_user_errors(edgeplan, monkeypatch):
    from runtime_edge.cli import probe

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(probe, "probe_device", fail)
    with pytest.raises(ZeroDivisionError):
        edgeplan("probe")
