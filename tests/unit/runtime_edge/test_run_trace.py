"""Traces of runs: what a viewer of the Chrome trace format needs, in the right places."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
from support import tiny_plans

from planformat.writer import plan_bytes, save_plan
from runtime_edge import cli, load
from runtime_edge.cli import bench
from runtime_edge.context import ExecutionContext
from runtime_edge.device_bindings import DeviceBindings
from runtime_edge.errors import BindingError
from runtime_edge.run_trace import trace_runs


def spans(trace, category):
    return [event for event in trace["traceEvents"] if event.get("cat") == category]


def lanes(trace):
    named = [e for e in trace["traceEvents"] if e["ph"] == "M"]
    assert all(e["name"] == "thread_name" for e in named)
    return {e["args"]["name"]: e["tid"] for e in named}


def test_streams_have_lanes_and_steps_lie_within_their_inference():
    with load(plan_bytes(tiny_plans.plan(num_pairs=2))) as engine:
        trace = trace_runs(
            engine, "fast", fill=lambda bindings: bindings.fill(1), num_streams=2, num_runs=4
        )
    assert set(lanes(trace)) == {"steps, a barrier after each", "stream 0", "stream 1"}
    by_lane = {
        name: [e for e in spans(trace, "inference") if e["tid"] == thread]
        for name, thread in lanes(trace).items()
    }
    for runs in by_lane.values():
        assert [run["name"] for run in runs] == [f"inference {n}" for n in range(4)]
        ends = [run["ts"] + run["dur"] for run in runs]
        assert all(run["dur"] > 0 for run in runs)
        assert all(end <= run["ts"] for end, run in zip(ends, runs[1:], strict=False))
    for enqueue in spans(trace, "host"):
        assert any(
            run["tid"] == enqueue["tid"]
            and run["ts"] <= enqueue["ts"]
            and enqueue["ts"] + enqueue["dur"] <= run["ts"] + run["dur"]
            for run in spans(trace, "inference")
        )
    steps = spans(trace, "step")
    names = ["scale0", "shift0", "scale1", "shift1"]
    assert [step["name"] for step in steps] == names * 4
    assert [step["args"]["tactic"] for step in steps] == ["t0", "t1"] * 8
    assert steps[0]["args"]["symbol"] == "scale"
    for number, run in enumerate(by_lane["steps, a barrier after each"]):
        own = steps[number * 4 : number * 4 + 4]
        rounding = 4 * math.ulp(run["ts"])  # of microseconds since the machine was started
        assert own[0]["ts"] == pytest.approx(run["ts"], rel=0, abs=rounding)
        assert own[-1]["ts"] + own[-1]["dur"] <= run["ts"] + run["dur"] + 1e-3 + rounding
    assert {event["pid"] for event in trace["traceEvents"]} == {1}
    assert json.loads(json.dumps(trace)) == trace


@pytest.mark.parametrize("num_runs", [0, 10_001])
def test_the_number_of_runs_is_bounded(num_runs):
    with (
        load(plan_bytes(tiny_plans.plan())) as engine,
        pytest.raises(ValueError, match="num_runs is"),
    ):
        trace_runs(engine, fill=lambda bindings: bindings.fill(1), num_runs=num_runs)


def test_a_run_that_fails_ends_the_trace_and_gives_everything_back():
    with load(plan_bytes(tiny_plans.plan())) as engine:  # closing complains of open contexts

        def refuse(bindings):
            bindings.write({"x": b"too short"})

        with pytest.raises(BindingError, match="input 'x': got 9 bytes, expected 4,000"):
            trace_runs(engine, fill=refuse, num_streams=2)


def endless_trace(engine):
    trace_runs(engine, fill=lambda bindings: bindings.fill(1), num_streams=2, num_runs=10_000)


def endless_bench(engine):
    bench.measure(engine, None, 2, duration_s=600.0)


@pytest.mark.parametrize(
    ("run", "num_good"),
    [
        pytest.param(endless_trace, 0, id="trace, while the others wait for it"),
        pytest.param(endless_trace, 10, id="trace"),
        pytest.param(endless_bench, 10, id="bench, behind its warm-up"),
    ],
)
def test_all_streams_end_when_one_is_interrupted(monkeypatch, run, num_good):
    """The other one would go on in memory that is given back."""
    enqueue, calls = ExecutionContext.enqueue, []

    def interrupted(self, *arguments):
        if threading.current_thread() is threading.main_thread():
            calls.append(self)
            if len(calls) > num_good:
                raise KeyboardInterrupt
        return enqueue(self, *arguments)

    monkeypatch.setattr(ExecutionContext, "enqueue", interrupted)
    others = set(threading.enumerate())
    with (
        load(plan_bytes(tiny_plans.plan()), canary=False) as engine,
        pytest.raises(KeyboardInterrupt),
    ):
        run(engine)
    assert set(threading.enumerate()) <= others


def test_bindings_write_and_read():
    x = np.arange(1000, dtype=np.float32)
    with load(plan_bytes(tiny_plans.plan())) as engine:
        with DeviceBindings(engine, "fast") as bindings:
            bindings.write({"x": x.tobytes()})
            assert bindings.read("x") == x.tobytes()
            with pytest.raises(BindingError, match="no input 'z'; the plan has x, y"):
                bindings.write({"z": b""})
        assert bindings.addresses == {}


def test_by_the_command_line(tmp_path, capsys):
    save_plan(tiny_plans.plan(), tmp_path / "tiny.plan")
    np.save(tmp_path / "x.npy", np.zeros((1, 1000), np.float32))
    plan, out = str(tmp_path / "tiny.plan"), str(tmp_path / "t.json")
    given = ("--input", f"x={tmp_path / 'x.npy'}")
    assert cli.main(["run", plan, *given, "--trace", out, "--trace-runs", "2"]) == 0
    assert len(spans(json.loads((tmp_path / "t.json").read_text()), "step")) == 4
    bench = ("--duration", "0.01", "--streams", "3", "--trace", out)
    assert cli.main(["bench", plan, *bench]) == 0
    trace = json.loads((tmp_path / "t.json").read_text())
    assert {"stream 0", "stream 1", "stream 2"} < set(lanes(trace))
    assert len(spans(trace, "inference")) == 4 * 10
    capsys.readouterr()
    assert cli.main(["bench", plan, *bench, "--trace-runs", "10001"]) == 1
    assert "at most 10,000" in capsys.readouterr().err
