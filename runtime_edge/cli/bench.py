"""Measure latency and throughput of a plan on this device.

Each stream has its own context and thread and runs one inference after another on generated inputs;
latency is from enqueue to the end of synchronize.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from array import array
from typing import Any

from runtime_edge.cli._loading import (
    add_load_arguments,
    add_trace_arguments,
    check_trace_arguments,
    load_engine,
    positive_float,
    positive_int,
    write_trace,
)
from runtime_edge.device_bindings import DeviceBindings
from runtime_edge.engine import Engine

_PERCENTILES = (50, 90, 95, 99)
_WARM_UP_RUNS = 3
_SEED = 1  # of the generated inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_load_arguments(parser)
    parser.add_argument("--streams", type=positive_int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--duration", type=positive_float, default=3.0, metavar="S", help="seconds (default 3)"
    )
    parser.add_argument("--steps", action="store_true", help="also the time of every step")
    add_trace_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    check_trace_arguments(args)
    start = time.perf_counter()
    engine = load_engine(args)
    load_ms = (time.perf_counter() - start) * 1000
    report: dict[str, Any] = {
        "plan": args.plan,
        "network": engine.name,
        "profile": engine.profile(args.profile).name,
        "streams": args.streams,
        "load_ms": round(load_ms, 3),
        **measure(engine, args.profile, args.streams, args.duration),
    }
    if args.steps:
        report["steps"] = _measure_steps(engine, args.profile)
    write_trace(args, engine, args.profile, lambda bindings: bindings.fill(_SEED), args.streams)
    if args.json:
        print(json.dumps(report))
        return 0
    latency = report["latency_us"]
    print(
        f"{report['network']}, profile {report['profile']}: {report['threads']} threads, "
        f"{args.streams} streams, {report['runs']:,} runs in {report['duration_s']:.2f} s, "
        f"loaded in {load_ms:.1f} ms"
    )
    print("latency µs: " + "  ".join(f"{name} {value:,.1f}" for name, value in latency.items()))
    print(f"throughput: {report['inferences_per_s']:,.1f} inferences/s")
    print(f"enqueue: {report['enqueue_us']:.1f} µs (median)")
    for row in report.get("steps", ()):
        print(f"{row['time_us']:10.1f} µs  {row['name']}  {row['tactic']}")
    return 0


def measure(
    engine: Engine, profile: str | None, num_streams: int, duration_s: float
) -> dict[str, Any]:
    """Run inferences on num_streams streams for duration_s seconds.

    Returns:
        `threads` per context, `runs`, `duration_s`, `inferences_per_s`, `latency_us` (min, mean,
        percentiles, max) and the median `enqueue_us`.
    """
    users = [_User(engine, profile) for _ in range(num_streams)]
    threads: list[threading.Thread] = []
    try:
        for user in users:
            user.run_for(0.0, _WARM_UP_RUNS)
        start = time.perf_counter()
        for user in users[1:]:
            threads.append(threading.Thread(target=user.run_for, args=(duration_s, 1)))
            threads[-1].start()
        users[0].run_for(duration_s, 1)
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - start
        for user in users:
            if user.error is not None:
                raise user.error
        latencies = sorted(value for user in users for value in user.latencies_us)
        enqueues = sorted(value for user in users for value in user.enqueues_us)
        return {
            "threads": users[0].context.num_workers,
            "runs": len(latencies),
            "duration_s": round(elapsed, 4),
            "inferences_per_s": round(len(latencies) / elapsed, 2),
            "latency_us": {
                "min": round(latencies[0], 2),
                "mean": round(sum(latencies) / len(latencies), 2),
                **{f"p{p}": round(_percentile(latencies, p), 2) for p in _PERCENTILES},
                "max": round(latencies[-1], 2),
            },
            "enqueue_us": round(_percentile(enqueues, 50), 2),
        }
    finally:
        for user in users:
            user.is_over = True
        for thread in threads:  # an interrupt gets here while they still use what is closed below
            thread.join()
        for user in users:
            user.close()


class _User:
    """A stream with a context and memory for its bindings."""

    def __init__(self, engine: Engine, profile: str | None) -> None:
        self.memory = DeviceBindings(engine, profile)
        self.memory.fill(_SEED)
        self.bindings = self.memory.addresses
        self.context = engine.create_context(profile=profile)
        self.stream = engine.create_stream()
        self.latencies_us = array("d")
        self.enqueues_us = array("d")
        self.error: Exception | None = None
        self.is_over = False  # set from elsewhere, to end run_for early

    def run_for(self, duration_s: float, least_runs: int) -> None:
        self.latencies_us = array("d")
        self.enqueues_us = array("d")
        try:
            end = time.perf_counter_ns() + int(duration_s * 1e9)
            while True:
                start = time.perf_counter_ns()
                self.context.enqueue(self.bindings, self.stream)
                enqueued = time.perf_counter_ns()
                self.stream.synchronize()
                done = time.perf_counter_ns()
                self.enqueues_us.append((enqueued - start) / 1000)
                self.latencies_us.append((done - start) / 1000)
                if self.is_over or (done >= end and len(self.latencies_us) >= least_runs):
                    return
        except Exception as error:
            self.error = error  # raised by the caller's thread

    def close(self) -> None:
        self.stream.close()
        self.context.close()
        self.memory.close()


def _measure_steps(engine: Engine, profile: str | None) -> list[dict[str, Any]]:
    user = _User(engine, profile)
    try:
        times = user.context.measure_steps(user.bindings)
    finally:
        user.close()
    return [
        {
            "name": t.name,
            "tactic": t.tactic,
            "time_us": round(t.time_us, 2),
            "built_us": t.built_us,
        }
        for t in times
    ]


def _percentile(ordered: list[float], percent: int) -> float:
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]
