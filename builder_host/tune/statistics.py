"""What a timing database holds, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from builder_host.tune.timing_cache import Timing, TimingCache, TimingKey


@dataclass(frozen=True, slots=True)
class DatabaseGroup:
    """Records of one device, toolchain and way of measuring.

    Attributes:
        fingerprint: id of the device's fingerprint; toolchain: compiler; conditions: of measuring.
        num_records, num_failed: candidates, and those that could not run.
        num_problems: distinct problems; num_plans: whole plans among them.
        families: records by kernel family, by name.
        dispersion: median over the records of (p80 - p20) / median; None without repeats.
        observed: number of records that say clocks, temperature and load.
    """

    fingerprint: str
    toolchain: str
    conditions: str
    num_records: int
    num_failed: int
    num_problems: int
    num_plans: int
    families: dict[str, int]
    dispersion: float | None
    observed: int


def database_groups(cache: TimingCache) -> list[DatabaseGroup]:
    """Groups of a database, sorted by device, toolchain and conditions."""
    rows: dict[tuple[str, str, str], list[tuple[TimingKey, Timing]]] = {}
    for key, timing in cache:
        rows.setdefault((key.fingerprint, key.toolchain, key.conditions), []).append((key, timing))
    return [_group(*names, rows[names]) for names in sorted(rows)]


def _group(
    fingerprint: str, toolchain: str, conditions: str, rows: list[tuple[TimingKey, Timing]]
) -> DatabaseGroup:
    families: dict[str, int] = {}
    for key, _ in rows:
        name = key.tactic.partition("(")[0]
        families[name] = families.get(name, 0) + 1
    problems = {key.problem for key, _ in rows}
    return DatabaseGroup(
        fingerprint,
        toolchain,
        conditions,
        len(rows),
        sum(timing.median_us is None for _, timing in rows),
        len(problems),
        sum(problem.startswith("plan:") for problem in problems),
        dict(sorted(families.items())),
        _dispersion(timing for _, timing in rows),
        sum(bool(timing.observed) for _, timing in rows),
    )


def _dispersion(timings: Iterable[Timing]) -> float | None:
    shares = [
        (t.p80_us - t.p20_us) / t.median_us
        for t in timings
        if t.median_us and t.p20_us is not None and t.p80_us is not None
    ]
    return round(statistics.median(shares), 4) if shares else None
