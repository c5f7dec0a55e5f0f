"""The trace of many requests: complete, and made in time."""

from __future__ import annotations

import json

from runtime_edge.serve.statistics import RequestTimes
from runtime_edge.serve.trace import Trace, TracedRequest, trace_text


def traced(number, *, batch, stream="cpu/default", deadline_ns=None):
    at = 1000 * number
    times = RequestTimes(at, at + 100, at + 400, at + 500, 50, 200, 50)
    return TracedRequest(number, "m", stream, 2, batch, 1, 1, times, deadline_ns)


def test_requests_of_one_execution_are_shown_in_it():
    trace = Trace(4)
    for number, batch in ((1, 7), (2, 7), (3, 8), (4, 8), (5, 9)):
        trace.add(traced(number, batch=batch))
    assert [request.number for request in trace.since(0)] == [2, 3, 4, 5]
    content = json.loads(trace_text(trace.since(2_501)))
    executions = [e for e in content["traceEvents"] if e.get("cat") == "execution"]
    shown = [e["args"]["requests"] for e in executions if "args" in e]
    assert shown == [[3, 4], [5]]
    names = [e["args"]["name"] for e in content["traceEvents"] if e["ph"] == "M"]
    assert names == ["stream cpu/default"]
    assert content["displayTimeUnit"] == "ms"


def test_streams_number_their_executions_on_their_own():
    rows = [traced(1, batch=1, stream="a"), traced(2, batch=1, stream="b", deadline_ns=5000)]
    events = json.loads(trace_text(rows))["traceEvents"]
    threads = [e["tid"] for e in events if e.get("args", {}).get("requests")]
    assert threads == [1, 2]
    (left,) = (e["args"]["left_us"] for e in events if "left_us" in e.get("args", {}))
    assert left == 2.5


def test_nothing_is_an_empty_trace():
    assert json.loads(trace_text([])) == {"traceEvents": [], "displayTimeUnit": "ms"}
