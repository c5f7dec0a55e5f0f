"""The figures that trtexec prints, with the same definitions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.planexec.inference import Query

_UNSTABLE = 0.1  # coefficient of variation from which compute times count as unstable


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of one kind of time, in milliseconds."""

    minimum: float
    maximum: float
    mean: float
    median: float
    percentiles: tuple[tuple[float, float], ...]
    variation: float

    def text(self) -> str:
        """As trtexec writes it."""
        parts = [
            f"min = {self.minimum:g} ms",
            f"max = {self.maximum:g} ms",
            f"mean = {self.mean:g} ms",
            f"median = {self.median:g} ms",
            *(f"percentile({percent:g}%) = {value:g} ms" for percent, value in self.percentiles),
        ]
        return ", ".join(parts)


def summarise(times: Sequence[float], percents: Sequence[float]) -> Summary:
    """Statistics; a percentile p leaves out the slowest (1 - p / 100) n samples."""
    ordered = sorted(times)
    mean = statistics.fmean(ordered)
    return Summary(
        ordered[0],
        ordered[-1],
        mean,
        statistics.median(ordered),
        tuple((percent, percentile(ordered, percent)) for percent in percents),
        statistics.pstdev(ordered) / mean if mean > 0 else 0.0,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The slowest of what is left when (1 - percent / 100) n samples are dropped."""
    dropped = int((100 - percent) * len(ordered) / 100)
    return ordered[max(len(ordered) - 1 - dropped, 0)]


def performance_lines(
    queries: Sequence[Query], wall_s: float, percents: Sequence[float], num_streams: int
) -> list[str]:
    """The performance summary, its warnings last."""
    kinds = {
        "Latency": [q.latency for q in queries],
        "Enqueue Time": [q.enqueue for q in queries],
        "H2D Latency": [q.h2d for q in queries],
        "GPU Compute Time": [q.compute for q in queries],
        "D2H Latency": [q.d2h for q in queries],
    }
    found = {name: summarise(times, percents) for name, times in kinds.items()}
    lines = ["=== Performance summary ===", f"Throughput: {len(queries) / wall_s:g} qps"]
    lines += [f"{name}: {summary.text()}" for name, summary in found.items()]
    total_compute_s = sum(kinds["GPU Compute Time"]) / 1e3
    lines += [
        f"Total Host Walltime: {wall_s:g} s",
        f"Total GPU Compute Time: {total_compute_s:g} s",
    ]
    return lines + warnings(found, num_streams)


def warnings(found: dict[str, Summary], num_streams: int) -> list[str]:
    """What stands in the way of trusting the figures."""
    compute = found["GPU Compute Time"]
    lines = []
    for name, place in (
        ("Enqueue Time", "the host's enqueue"),
        ("H2D Latency", "copies of the inputs"),
        ("D2H Latency", "copies of the outputs"),
    ):
        if found[name].median > compute.median:
            lines.append(
                f"* Throughput may be bound by {place} ({found[name].median:g} ms) rather than by "
                f"compute ({compute.median:g} ms)"
            )
    if compute.variation > _UNSTABLE:
        lines.append(
            f"* Compute time is unstable, coefficient of variation {compute.variation:.1%}: lock "
            "the clocks, or leave the device to this process"
        )
    if num_streams > 1:
        lines.append(
            f"* {num_streams} streams share the device: compute times are not those of one stream"
        )
    return lines
