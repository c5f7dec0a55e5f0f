"""CPU kernels that pool in their store against convolution and pooling, in CPU time of one thread.

Seconds of the thread, not of the clock, so that other jobs on the machine disturb little; the
tactics of the three kernels take turns, caches stay warm. The AVX-512 kernels of the layers that
hold the peaks of VGG-16 and YOLOv2. `bench_pooled` times by the clock, on GPUs too.

    PYTHONPATH=.:tests python benchmarks/bench_pooled_cpu.py [--seconds 45]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from support.convolutions import RELU, Case, inputs_of, problem_of
from support.cpu_kernels import AVX512, Kernel
from support.pooled_convolutions import pooled

from benchmarks.bench_conv_kernels import caller
from builder_host.expressions import Const, Input, leaky_relu
from builder_host.kernels.conv_first.family import FAMILY as FIRST
from builder_host.kernels.conv_winograd.family import FAMILY as WINOGRAD
from builder_host.kernels.family import Problem
from builder_host.kernels.pooling.family import FAMILY as POOLING

LEAKY = leaky_relu(Input(0), Const(0.1))
ROWS: tuple[tuple[str, Any, Case], ...] = (
    ("VGG-16 conv1_2 + pool1", WINOGRAD, Case(64, 64, 224, 224, expr=RELU)),
    ("YOLOv2 conv1 + pool1", FIRST, Case(3, 32, 416, 416, linear=True, expr=LEAKY)),
    ("YOLOv2 conv2 + pool2", WINOGRAD, Case(32, 64, 208, 208, expr=LEAKY)),
)
MOST_TACTICS = 4


def best_times(kernels: list[list[Kernel]], seconds: float) -> list[tuple[float, float]]:
    """For each list of tactics the best one's minimum and 20th percentile, microseconds."""
    calls = [[caller(kernel) for kernel in tactics] for tactics in kernels]
    times: list[list[list[float]]] = [[[] for _ in tactics] for tactics in calls]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for tactics, rows in zip(calls, times, strict=True):
            for call, row in zip(tactics, rows, strict=True):
                call()
                for _ in range(2):
                    start = time.thread_time_ns()
                    call()
                    row.append((time.thread_time_ns() - start) / 1e3)
    return [
        (min(min(row) for row in rows), min(float(np.percentile(row, 20)) for row in rows))
        for rows in times
    ]


def main() -> None:
    """Print a row per pair."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=45.0, help="for each pair")
    args = parser.parse_args()
    print("| pair | fused us | convolution us | pooling us | of minima | of 20th percentiles |")
    print("|---" * 6 + "|")
    for name, family, case in ROWS:
        apart = problem_of(case, AVX512)
        fused = pooled(apart)
        (between,) = apart.outputs
        pooling = Problem("pooling", fused.params.pooling, (between,), (False,), fused.outputs)
        raw = np.random.default_rng(0).standard_normal(between.shape).astype(np.float32)
        kernels = [
            [
                Kernel(one, problem, tactic, AVX512, inputs)
                for tactic in one.tactics(problem, AVX512)[:MOST_TACTICS]
            ]
            for one, problem, inputs in (
                (family, fused, inputs_of(apart)),
                (family, apart, inputs_of(apart)),
                (POOLING, pooling, [raw]),
            )
        ]
        times = best_times(kernels, args.seconds)
        cells = [f"{low:.0f} ({p20:.0f})" for low, p20 in times]
        ratios = [f"{times[0][i] / (times[1][i] + times[2][i]):.2f}" for i in (0, 1)]
        print(f"| {name} | {' | '.join(cells)} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
