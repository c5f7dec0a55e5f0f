"""What a served plan has done. Written on the event loop's thread only."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

HISTOGRAM_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
RECENT_REQUESTS = 1024


@dataclass(slots=True)
class Span:
    """A number of durations and their sum in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count durations that take `ns` together."""
        self.count += count
        self.ns += ns

    def json(self) -> dict[str, int]:
        """As the protocol's statistics show it."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class BatchSpans:
    """Executions of one batch size."""

    input: Span = field(default_factory=Span)
    infer: Span = field(default_factory=Span)
    output: Span = field(default_factory=Span)


@dataclass(slots=True)
class RequestTimes:
    """Of one request, monotonic nanoseconds: received, execution begins, ends, answered.

    Attributes:
        input_ns, infer_ns, output_ns: durations of the parts of its execution.
    """

    received_ns: int
    start_ns: int
    end_ns: int
    answered_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(slots=True)
class PlanStatistics:
    """Counters of one plan since the daemon's start.

    Attributes:
        inferences: rows; executions: batches.
        refusals: 503 answers by reason; failures: other unsuccessful ends by Triton's reason.
        missed_deadlines: answered, but late.
        recent: (end, monotonic seconds; total; queue; infer, in µs) of the last requests.
    """

    success: Span = field(default_factory=Span)
    fail: Span = field(default_factory=Span)
    queue: Span = field(default_factory=Span)
    input: Span = field(default_factory=Span)
    infer: Span = field(default_factory=Span)
    output: Span = field(default_factory=Span)
    inferences: int = 0
    executions: int = 0
    padded_rows: int = 0
    missed_deadlines: int = 0
    reloads: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    batches: dict[int, BatchSpans] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=lambda: [0] * (len(HISTOGRAM_MS) + 1))
    recent: deque[tuple[float, float, float, float]] = field(
        default_factory=lambda: deque(maxlen=RECENT_REQUESTS)
    )
    last_inference_ms: int = 0

    def add_success(self, times: RequestTimes, rows: int) -> None:
        """Count an answered request."""
        total_ns = times.answered_ns - times.received_ns
        queue_ns = times.start_ns - times.received_ns
        self.success.add(total_ns)
        self.queue.add(queue_ns)
        self.input.add(times.input_ns)
        self.infer.add(times.infer_ns)
        self.output.add(times.output_ns)
        self.inferences += rows
        self.histogram[bisect_left(HISTOGRAM_MS, total_ns / 1e6)] += 1
        self.recent.append(
            (times.answered_ns / 1e9, total_ns / 1e3, queue_ns / 1e3, times.infer_ns / 1e3)
        )

    def add_execution(self, rows: int, runs: int, padded_rows: int, times: RequestTimes) -> None:
        """Count a batch."""
        self.executions += runs
        self.padded_rows += padded_rows
        self.last_inference_ms = int(time.time() * 1000)
        spans = self.batches.setdefault(rows, BatchSpans())
        spans.input.add(times.input_ns)
        spans.infer.add(times.infer_ns)
        spans.output.add(times.output_ns)

    def add_failure(self, reason: str, duration_ns: int) -> None:
        """Count a request that was not answered with 200."""
        self.fail.add(duration_ns)
        self.failures[reason] += 1

    def json(self, name: str, version: str) -> dict[str, Any]:
        """An entry of `model_stats`."""
        none = Span().json()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self.success.json(),
                "fail": self.fail.json(),
                "queue": self.queue.json(),
                "compute_input": self.input.json(),
                "compute_infer": self.infer.json(),
                "compute_output": self.output.json(),
                "cache_hit": none,
                "cache_miss": none,
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": spans.input.json(),
                    "compute_infer": spans.infer.json(),
                    "compute_output": spans.output.json(),
                }
                for rows, spans in sorted(self.batches.items())
            ],
        }


def quantile(ordered: list[float], fraction: float) -> float:
    """Nearest rank; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
