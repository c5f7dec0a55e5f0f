"""Commands on CUDA plans."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime_edge.cli import main


@pytest.fixture
def path(plan_data, tmp_path):
    made = tmp_path / "tiny.plan"
    made.write_bytes(plan_data())
    return made


def test_run(path, tmp_path, capsys):
    x = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)
    np.save(tmp_path / "x.npy", x)
    command = [
        "run",
        str(path),
        "--input",
        f"x={tmp_path / 'x.npy'}",
        "--output-dir",
        str(tmp_path),
    ]
    assert main([*command, "--device", "cuda:0"]) == 0
    assert "y: float32 1x1000" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "y.npy"), x * np.float32(0.5) + np.float32(3))


def test_bench(path, capsys):
    command = ["bench", str(path), "--duration", "0.05", "--streams", "2", "--steps", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runs"] >= 2
    assert [row["name"] for row in report["steps"]] == ["scale0", "shift0"]


def test_trace(path, tmp_path):
    out = tmp_path / "t.json"
    assert main(["bench", str(path), "--duration", "0.01", "--trace", str(out)]) == 0
    events = json.loads(out.read_text())["traceEvents"]
    steps = [event for event in events if event.get("cat") == "step"]
    assert [step["name"] for step in steps] == ["scale0", "shift0"] * 10


def test_inspect_needs_no_gpu(path, capsys):
    assert main(["inspect", str(path)]) == 0
    assert "cuda" in capsys.readouterr().out


def test_a_device_that_the_plan_is_not_for(path, capsys):
    assert main(["bench", str(path), "--device", "cpu"]) != 0
    assert "device_kind: the plan has 'cuda', the device has 'cpu'" in capsys.readouterr().err
    assert main(["bench", str(path), "--device", "tpu"]) != 0
    assert "known are cpu, cuda" in capsys.readouterr().err
