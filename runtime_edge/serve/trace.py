"""The last requests as Chrome trace events, for chrome://tracing and Perfetto."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime_edge.serve.statistics import RequestTimes
from runtime_edge.trace_events import PROCESS, Event, document, lane, span


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request.

    Attributes:
        number: counts requests; plan, stream: names; priority: 1 is first.
        batch: number of the execution; rows: of the request; generation: of the plan.
        deadline_ns: monotonic, None without.
    """

    number: int
    plan: str
    stream: str
    priority: int
    batch: int
    rows: int
    generation: int
    times: RequestTimes
    deadline_ns: int | None


class Trace:
    """A ring of requests."""

    def __init__(self, capacity: int) -> None:
        """Keep the last `capacity` requests; 0 keeps none."""
        self._requests: deque[TracedRequest] = deque(maxlen=capacity)
        self.is_on = capacity > 0

    def add(self, request: TracedRequest) -> None:
        """Remember a request."""
        self._requests.append(request)

    def since(self, time_ns: int) -> list[TracedRequest]:
        """Those that were answered after a time."""
        return [request for request in self._requests if request.times.answered_ns >= time_ns]


def trace_text(requests: Sequence[TracedRequest]) -> bytes:
    """Trace event format: executions by stream, waiting times by plan (as async events).

    Made in small pieces: one call of the encoder for all would keep every other thread waiting.
    """
    streams = {name: i + 1 for i, name in enumerate(sorted({r.stream for r in requests}))}
    batches: dict[tuple[str, int], list[TracedRequest]] = {}
    for request in requests:
        batches.setdefault((request.stream, request.batch), []).append(request)
    texts = [_text([lane(f"stream {name}", number)]) for name, number in streams.items()]
    for (stream, _), batch in batches.items():
        events = _execution(batch[0], batch, streams[stream])
        for request in batch:
            events += _waiting(request)
        texts.append(_text(events))
    whole = json.dumps(document([]), separators=(",", ":"))
    return whole.replace("[]", "[" + ",".join(texts) + "]", 1).encode()


def _text(events: list[Event]) -> str:
    return json.dumps(events, separators=(",", ":"))[1:-1]


def _execution(first: TracedRequest, batch: list[TracedRequest], thread: int) -> list[Event]:
    times = first.times
    args = {
        "plan": first.plan,
        "generation": first.generation,
        "priorities": [r.priority for r in batch],
        "rows": sum(r.rows for r in batch),
        "requests": [r.number for r in batch],
    }
    kind = "execution"
    whole_ns = times.end_ns - times.start_ns
    events = [span(first.plan, kind, thread, times.start_ns, whole_ns, args)]
    at = times.start_ns
    for name, duration in (
        ("input", times.input_ns),
        ("infer", times.infer_ns),
        ("output", times.output_ns),
    ):
        events.append(span(name, kind, thread, at, duration))
        at += duration
    return events


def _waiting(request: TracedRequest) -> list[Event]:
    common = {
        "pid": PROCESS,
        "tid": 0,
        "cat": f"requests of {request.plan}",
        "id": request.number,
        "name": f"{request.plan} priority {request.priority}",
    }
    times = request.times
    args: dict[str, Any] = {
        "queue_us": (times.start_ns - times.received_ns) / 1e3,
        "priority": request.priority,
    }
    if request.deadline_ns is not None:
        args["left_us"] = (request.deadline_ns - times.answered_ns) / 1e3
    return [
        {**common, "ph": "b", "ts": times.received_ns / 1e3, "args": args},
        {**common, "ph": "e", "ts": times.answered_ns / 1e3},
    ]
