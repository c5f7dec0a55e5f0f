"""Latency of one inference: what the builder records, boards report and checks compare with."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from runtime_edge.device_bindings import DeviceBindings

if TYPE_CHECKING:
    from runtime_edge.engine import Engine

_MAX_RUNS = 50
_BUDGET_S = 2.0
_WARM_UP_RUNS = 2


class Latency(NamedTuple):
    """Median, 20th and 80th percentile in microseconds, and the number of inferences."""

    median_us: float
    p20_us: float
    p80_us: float
    num_runs: int


def measure_latency(engine: Engine, profile: str | None = None, *, seed: int = 1) -> Latency:
    """Time inferences one after another, warm, from `enqueue` to the end of `synchronize`.

    Bindings lie in memory of the device, so that nothing is copied within the time; the inputs are
    those of the canary for `seed`. At most 50 inferences after two that do not count, or as many as
    fit into two seconds, the first of them then counts too.

    Args:
        engine: loaded plan.
        profile: name; None is the first.
        seed: of the inputs.

    Raises:
        KeyError: no such profile.
        DeviceError: memory was refused, or an inference failed.
    """
    times_us: list[float] = []
    with (
        engine.create_stream() as stream,
        DeviceBindings(engine, profile) as bindings,
        engine.create_context(profile=profile) as context,
    ):
        bindings.fill(seed)
        end = time.perf_counter() + _BUDGET_S
        for run in range(_WARM_UP_RUNS + _MAX_RUNS):
            start = time.perf_counter_ns()
            context.enqueue(bindings.addresses, stream)
            stream.synchronize()
            elapsed_us = (time.perf_counter_ns() - start) / 1000
            is_over = time.perf_counter() > end
            if run >= _WARM_UP_RUNS or is_over:
                times_us.append(elapsed_us)
            if is_over:
                break
    times_us.sort()
    last = len(times_us) - 1
    return Latency(
        round(statistics.median(times_us), 3),
        round(times_us[int(0.2 * last)], 3),
        round(times_us[int(0.8 * last)], 3),
        len(times_us),
    )
