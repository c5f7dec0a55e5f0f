"""Events of the Chrome trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing draw.

Times are those of the host's monotonic clock, in nanoseconds here and in microseconds in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Event = dict[str, Any]

PROCESS = 1


def lane(name: str, thread: int) -> Event:
    """Names a lane; lanes are threads to the viewer."""
    return {
        "ph": "M",
        "name": "thread_name",
        "pid": PROCESS,
        "tid": thread,
        "args": {"name": name},
    }


def span(
    name: str,
    category: str,
    thread: int,
    start_ns: float,
    duration_ns: float,
    args: Mapping[str, Any] | None = None,
) -> Event:
    """Something that takes time in a lane; spans within it lie under it."""
    event: Event = {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": PROCESS,
        "tid": thread,
        "ts": start_ns / 1e3,
        "dur": duration_ns / 1e3,
    }
    if args is not None:
        event["args"] = dict(args)
    return event


def document(events: list[Event]) -> dict[str, Any]:
    """What a trace file holds."""
    return {"traceEvents": events, "displayTimeUnit": "ms"}
