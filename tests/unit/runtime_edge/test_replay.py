"""Captured runs: written, repeated, compared; and folders that are no captures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import tiny_plans

from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint
from planformat.writer import save_plan
from runtime_edge import cli, probe_device
from runtime_edge.capture import (
    UNFINISHED,
    Capture,
    CapturedOptions,
    CapturedPlan,
    CapturedTensor,
    read_capture,
    write_capture,
)
from runtime_edge.cli.replay import output_result
from runtime_edge.errors import CaptureError

X = np.linspace(-2, 2, 1000, dtype=np.float32).reshape(1, 1000)


@pytest.fixture
def edgeplan(capsys, tmp_path, monkeypatch):
    """Run a command in a folder with `tiny.plan` and `x.npy`: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    save_plan(tiny_plans.plan(), "tiny.plan")
    np.save("x.npy", X)

    def run(*arguments: str):
        status = cli.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


RUN = ("run", "tiny.plan", "--input", "x=x.npy", "--capture", "c")


def test_a_run_that_went_well_leaves_nothing_unless_asked(edgeplan):
    assert edgeplan(*RUN)[0] == 0
    assert not Path("c").exists()
    assert edgeplan(*RUN, "--capture-always")[0] == 0
    capture = read_capture("c")
    assert capture.error is None
    np.testing.assert_array_equal(np.frombuffer(capture.inputs[0].data, np.float32), X[0])
    expected = np.array([tiny_plans.expected_value(float(x)) for x in X[0]], np.float32)
    np.testing.assert_allclose(np.frombuffer(capture.outputs[0].data, np.float32), expected)
    assert capture.fingerprint == dict(probe_device().fields)
    status, _, err = edgeplan("run", "tiny.plan", "--input", "x=x.npy", "--capture-always")
    assert status == 1
    assert "--capture-always needs --capture" in err


def test_the_same_outputs_again(edgeplan):
    edgeplan(*RUN, "--capture-always")
    status, out, _ = edgeplan("replay", "c")
    assert status == 0
    assert out == "y: the same 4,000 bytes\nthe same outcome\n"
    status, out, _ = edgeplan("replay", "c", "--json")
    assert json.loads(out)["is_same"] is True


def test_other_outputs_and_another_plan_are_told(edgeplan):
    edgeplan(*RUN, "--capture-always")
    os.rename("tiny.plan", "old.plan")
    save_plan(tiny_plans.plan(num_pairs=2), "other.plan")
    status, _, err = edgeplan("replay", "c")
    assert status == 1
    assert "No such file or directory; name the plan that was captured with --plan" in err
    status, out, _ = edgeplan("replay", "c", "--plan", "old.plan")
    assert (status, out) == (0, "y: the same 4,000 bytes\nthe same outcome\n")
    status, out, _ = edgeplan("replay", "c", "--plan", "other.plan")
    assert status == 3
    # x = -2: -2 * 0.5 + 3 = 2, and once more 2 * 0.5 + 3 = 4.
    assert "y: element 0 was 2, is 4\nANOTHER outcome\ndifferent: plan: SHA-256 was" in out
    status, out, _ = edgeplan("replay", "c", "--plan", "other.plan", "--atol", "3")
    assert status == 0
    assert "y: other bytes, within 3 + 0 of the value\nthe same outcome\n" in out


def test_an_error_again(edgeplan):
    np.save("x.npy", X.astype(np.float64))
    status, _, err = edgeplan(*RUN)
    assert status == 1
    assert "elements are float64" in err
    assert read_capture("c").error.type == "BindingError"
    status, out, _ = edgeplan("replay", "c")
    assert status == 0
    assert out.count("BindingError: input 'x': elements are float64") == 2


def test_a_captured_failure_is_not_written_over(edgeplan):
    np.save("x.npy", X.astype(np.float64))
    edgeplan(*RUN)
    np.save("x.npy", X)
    status, _, err = edgeplan(*RUN)
    assert status == 1
    assert "--capture c: holds a captured run already; remove it" in err
    assert read_capture("c").error.type == "BindingError"


def test_a_failure_that_does_not_come_again(edgeplan):
    good = Path("tiny.plan").read_bytes()
    save_plan(tiny_plans.plan(canary_error=1.0), "tiny.plan")
    assert edgeplan(*RUN)[0] == 1
    assert read_capture("c").error.type == "CanaryError"
    Path("tiny.plan").write_bytes(good)
    status, out, _ = edgeplan("replay", "c")
    assert status == 3
    assert "then: CanaryError" in out
    assert "now:  it goes well\nANOTHER outcome\ndifferent: plan: SHA-256 was" in out


def test_another_device_is_told_field_by_field(edgeplan):
    edgeplan(*RUN, "--capture-always")
    tree = json.loads(Path("c/capture.json").read_text())
    tree["fingerprint"]["cpu.model"] = "Another 1/2/3"
    tree["version"] = "0.0.1"
    Path("c/capture.json").write_text(json.dumps(tree))
    status, out, _ = edgeplan("replay", "c")
    assert status == 0
    model = probe_device().fields["cpu.model"]
    assert f"different: device cpu.model: was 'Another 1/2/3', is '{model}'" in out
    assert "different: edgeplan: was 0.0.1, is" in out


def test_options_of_the_run_are_those_of_the_replay(edgeplan):
    fields = {**probe_device().fields, "cpu.model": "Another 1/2/3"}
    save_plan(tiny_plans.plan(fingerprint=DeviceFingerprint("cpu", fields)), "tiny.plan")
    allowed = ("--allow", "cpu.model", "--profile", "fast", "--threads", "2", "--no-canary")
    assert edgeplan(*RUN, "--capture-always", *allowed)[0] == 0
    assert read_capture("c").options == CapturedOptions(
        "fast", 2, None, ("cpu.model",), canary=False
    )
    assert edgeplan("replay", "c")[0] == 0
    status, out, _ = edgeplan("replay", "c", "--allow", "")
    assert status == 3
    assert "now:  FingerprintMismatchError" in out


def test_a_run_that_takes_its_process_with_it_is_captured(edgeplan, tmp_path):
    save_plan(tiny_plans.plan(slow_times=1 << 40), "tiny.plan")
    command = [sys.executable, "-m", "runtime_edge.cli", *RUN, "--profile", "slow", "--no-canary"]
    child = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    )
    try:
        deadline = time.monotonic() + 60
        while not Path("c/capture.json").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    capture = read_capture("c")
    assert capture.error.type == UNFINISHED
    assert capture.inputs[0].name == "x"


def made(folder: Path, **changes: object) -> Path:
    """A capture with fields of its index changed; None removes one."""
    tensor = CapturedTensor("x", "float32", (2, 2), bytes(16))
    plan = CapturedPlan("/p.plan", 3, "0" * 64)
    capture = Capture("1", plan, CapturedOptions(), "cpu", {"a": "b"}, (tensor,))
    write_capture(capture, folder)
    assert read_capture(folder) == capture
    tree = json.loads((folder / "capture.json").read_text())
    for name, value in changes.items():
        place, *keys = tree, *name.split("__")
        for key in keys[:-1]:
            place = place[int(key) if key.isdigit() else key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
    (folder / "capture.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format is 2, this version reads 1"),
        ({"plan": None}, "'plan' is missing"),
        ({"plan": []}, "capture.json"),
        ({"inputs": {}}, "tensors are no list"),
        ({"inputs__0__file": "../x"}, r"lies in a file of the name '\.\./x'"),
        ({"inputs__0__file": "input-1.bin"}, "cannot be read"),
        ({"inputs__0__dtype": "object"}, "is of type 'object'"),
        ({"inputs__0__shape": [2, 3]}, "has 16 bytes, tensor 'x' needs 24"),
        ({"inputs__0__shape": [1]}, "has 16 bytes, expected at most 4"),
        ({"inputs__0__shape": [1 << 20, 1 << 20]}, "more than 1,073,741,824 bytes"),
        ({"inputs__0__shape": [-1, 4]}, "-1 is not a whole number"),
        ({"inputs__0__shape": [1] * 9}, "rank 9"),
        ({"inputs__0__sha256": "0" * 64}, "its SHA-256 is not the one in the index"),
        ({"options__threads": 1.5}, "1.5 is not a whole number"),
        ({"fingerprint": 3}, "capture.json"),
    ],
)
def test_hostile_folders_are_refused(tmp_path, changes, message):
    with pytest.raises(CaptureError, match=message):
        read_capture(made(tmp_path / "c", **changes))


def test_hostile_files_are_refused(tmp_path):
    folder = made(tmp_path / "c")
    (folder / "input-0.bin").unlink()
    (folder / "input-0.bin").symlink_to("/dev/zero")
    with pytest.raises(CaptureError, match="cannot be read"):
        read_capture(folder)
    (folder / "input-0.bin").unlink()
    os.mkfifo(folder / "input-0.bin")
    with pytest.raises(CaptureError, match="is no regular file"):
        read_capture(folder)
    for text in ("[" * 100_000, "\xff", "[]", '{"format": 1'):
        (folder / "capture.json").write_text(text, encoding="latin-1")
        with pytest.raises(CaptureError):
            read_capture(folder)
    with (folder / "capture.json").open("r+b") as file:
        file.truncate(2 << 20)
    with pytest.raises(CaptureError, match="expected at most 1,048,576"):
        read_capture(folder)


@pytest.mark.parametrize(("value", "is_same"), [(1.0078125, True), (2.0, False)])
def test_tolerance_of_bfloat16_is_of_its_values(value, is_same):
    """Arrays hold its bits: 1 is 0x3f80, 2 is 0x4000, which are 0.8% apart as integers."""
    then, now = (np.array([x], np.float32).view(np.uint32) >> 16 for x in (1.0, value))
    tensor = CapturedTensor("y", "uint16", (1,), then.astype(np.uint16).tobytes())
    row = output_result(tensor, now.astype(np.uint16), DataType.BFLOAT16, rtol=0.01, atol=0)
    assert row["is_same"] is is_same


def test_texts_of_a_hostile_folder_reach_no_terminal(edgeplan, tmp_path):
    for path in ("a\0b", "\ud800", "\x1b[2J"):
        status, _, err = edgeplan("replay", str(made(tmp_path / "c", plan__path=path)))
        assert status == 1
        assert f"plan {path.encode('unicode_escape').decode()}: " in err
        assert "name the plan that was captured with --plan" in err
    error = {"type": "E", "message": "\x1b[2J\udcff"}
    folder = made(tmp_path / "c", plan__path="tiny.plan", error=error, version="\x07")
    status, out, _ = edgeplan("replay", str(folder))
    assert status == 3
    assert "then: E: \\x1b[2J\\udcff\nnow:  " in out
    assert "edgeplan: was \\x07, is" in out


def test_a_plan_whose_path_is_no_utf8(edgeplan):
    path = os.fsdecode(b"\xff.plan")
    os.rename("tiny.plan", path)
    assert edgeplan("run", path, *RUN[2:], "--capture-always")[0] == 0
    assert edgeplan("replay", "c")[0] == 0


def test_inputs_are_written_once(edgeplan, monkeypatch):
    """What ends the process later must not find them half written."""
    written, write_bytes = [], Path.write_bytes

    def watched(path, data):
        written.append(path.name)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", watched)
    assert edgeplan(*RUN, "--capture-always")[0] == 0
    assert written == ["input-0.bin", "output-0.bin"]


def test_a_folder_with_other_things_is_left_alone(edgeplan):
    Path("c").mkdir()
    Path("c/precious.txt").write_text("keep")
    status, _, err = edgeplan(*RUN)
    assert status == 1
    assert "the folder holds 'precious.txt', which is no part of a capture" in err
    assert os.listdir("c") == ["precious.txt"]
