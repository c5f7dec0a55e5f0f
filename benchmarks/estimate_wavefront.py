"""What recurrent layers side by side could cost on two CPU cores, against the plans of today.

    python -m benchmarks.estimate_wavefront --timing-cache rnn.cache [lstm_512x2 ...]

Today the layers of a stack follow each other, and the workers share each step of a layer. Side by
side, one worker would compute a chunk of steps of one layer while the other computes the chunk
before it of the next. No plan does that; the estimate is made of measurements: a plan of one layer
and one chunk, states in and out, runs on one thread in two processes at once, pinned to two
cores, for two lengths of chunk. Their difference is the cost of a step beside a busy neighbour,
free of the fixed cost of a call. A stack takes a round of chunks after the other, each with a
barrier. Minima are printed: they are what a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import builder_host as bh
import runtime_edge as rt
from benchmarks.bench_rnn import Stack

_LENGTHS = (10, 20)  # steps of the chunks that are measured
_CHUNK = 10  # steps of the chunks that are estimated
_BARRIER_US = 1.5  # a launch that two workers share, generously
_ROUNDS = 3
_CALLS = 8  # between two looks at the clock
_TIMEOUT_S = 120.0

STACKS = {
    "lstm_512x2": Stack("LSTM", 512, 2, 100),
    "lstm_128x3": Stack("LSTM", 128, 3, 100),
    "gru_256x2": Stack("GRU", 256, 2, 100),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A plan to call again and again: its file, shapes of its inputs, core to stay on or None."""

    plan: str
    shapes: dict[str, tuple[int, ...]]
    core: int | None


def chunk_model(stack: Stack, steps: int) -> onnx.ModelProto:
    """One layer over some steps that begins with given states and returns the last ones."""
    hidden = stack.hidden
    arrays = dict(zip("WRB", stack.weights()[0], strict=True))
    states = ["h"] if stack.op == "GRU" else ["h", "c"]
    more: dict[str, Any] = {"linear_before_reset": 1} if stack.op == "GRU" else {}
    node = helper.make_node(
        stack.op,
        ["x", "W", "R", "B", "", *states],
        ["y", *(f"last_{state}" for state in states)],
        hidden_size=hidden,
        **more,
    )
    state_infos = [helper.make_tensor_value_info(s, 1, (1, 1, hidden)) for s in states]
    last_infos = [helper.make_tensor_value_info(f"last_{s}", 1, (1, 1, hidden)) for s in states]
    x = helper.make_tensor_value_info("x", 1, (steps, 1, hidden))
    y = helper.make_tensor_value_info("y", 1, (steps, 1, 1, hidden))
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "chunk", [x, *state_infos], [y, *last_infos], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def build(model: onnx.ModelProto, threads: int, path: Path, cache: str) -> Run:
    """Build a plan of a model for so many threads."""
    network = bh.import_onnx(model)
    config = bh.BuilderConfig(num_threads=threads, timing_cache=cache, is_checked=False)
    bh.build(network, config).save(path)
    return Run(str(path), {t.name: t.shape for t in network.inputs}, None)


def call_repeatedly(run: Run, seconds: float, start: Any, results: Any) -> None:
    """Put the shortest time of a call in microseconds on a queue; a process of its own."""
    context = rt.load(run.plan).create_context()
    if run.core is not None:  # behind the load, which counts the cores
        os.sched_setaffinity(0, {run.core})
    random = np.random.default_rng(0)
    inputs = {
        name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in run.shapes.items()
    }
    context.execute(inputs)
    start.wait(_TIMEOUT_S)
    shortest_us, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(_CALLS):
            begin = time.perf_counter_ns()
            context.execute(inputs)
            shortest_us = min(shortest_us, (time.perf_counter_ns() - begin) / 1e3)
    results.put(shortest_us)


def at_once(runs: list[Run], seconds: float) -> float:
    """Run plans at the same time; the longer of their shortest calls in microseconds."""
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(len(runs)), spawn.Queue()
    processes = [
        spawn.Process(target=call_repeatedly, args=(run, seconds, start, results)) for run in runs
    ]
    for process in processes:
        process.start()
    found: list[float] = [results.get(timeout=_TIMEOUT_S) for _ in processes]
    for process in processes:
        process.join()
    return max(found)


def estimate(name: str, folder: Path, cache: str, seconds: float) -> str:
    """A line about one stack."""
    stack, cores = STACKS[name], sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed, this process may use one")
    runs = {
        f"today, {threads} thread(s)": [
            build(stack.model(), threads, folder / f"{name}-{threads}.plan", cache)
        ]
        for threads in (1, 2)
    }
    for steps in _LENGTHS:
        one = build(chunk_model(stack, steps), 1, folder / f"{name}-chunk{steps}.plan", cache)
        runs[f"chunk of {steps}"] = [Run(one.plan, one.shapes, core) for core in cores]
    shortest = dict.fromkeys(runs, math.inf)
    for _ in range(_ROUNDS):
        for label, together in runs.items():
            shortest[label] = min(shortest[label], at_once(together, seconds))
    short, long = (shortest[f"chunk of {steps}"] for steps in _LENGTHS)
    step_us = (long - short) / (_LENGTHS[1] - _LENGTHS[0])
    # Chunks of all layers by two, and what the first and the last round leave idle.
    rounds = math.ceil(stack.steps / _CHUNK * stack.layers / 2 + (stack.layers - 1) / 2)
    side_by_side_us = rounds * (_CHUNK * step_us + _BARRIER_US)
    figures = "; ".join(f"{label} {value:,.0f} us" for label, value in shortest.items())
    return (
        f"{name}: {figures}; a step {step_us:.2f} us; side by side, estimated: {rounds} rounds, "
        f"{side_by_side_us:,.0f} us"
    )


def main() -> None:
    """Print a line per stack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stacks", nargs="*", help=f"of {', '.join(STACKS)} (default: all)")
    parser.add_argument("--timing-cache", default="rnn.cache")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    args = parser.parse_args()
    unknown = set(args.stacks) - set(STACKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(STACKS)}")
    with tempfile.TemporaryDirectory(prefix="edgeplan-wavefront-") as folder:
        for name in args.stacks or STACKS:
            print(estimate(name, Path(folder), args.timing_cache, args.seconds), flush=True)


if __name__ == "__main__":
    main()
