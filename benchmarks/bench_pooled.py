"""Convolutions that pool in their store, against the convolution and the pooling apart.

    python -m benchmarks.bench_pooled [--target host-cpu] [--networks vgg16,yolov2] [--rounds 5]

The pairs are those that a build for the target fuses: float16 on GPUs, float32 on CPUs, batch 1,
one thread. All tactics of the three kernels are timed as a build times them; then the best of each
are timed in turns, `--rounds` times. Figures are medians of those rounds, and the smallest and
largest of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import builder_host as bh
from benchmarks.predict_boards import NETWORKS, imported
from builder_host.builder import resolve_target
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.layouts import dense_layout
from builder_host.lowering.draft import make_draft
from builder_host.measure.base import MeasureJob
from builder_host.measure.local import LocalDevice, cpu_tune_device, gpu_tune_device
from builder_host.network.layers import convolution
from builder_host.network.tensor_type import TensorType
from builder_host.targets.backend import Backend, CpuBackend, make_backend
from builder_host.targets.target import target_hardware
from builder_host.tune.select import Tuner
from builder_host.tune.timing_cache import TimingCache


@dataclass(frozen=True)
class Pair:
    """Problems of a fused pair and of its halves."""

    name: str
    fused: Problem
    convolution: Problem
    pooling: Problem


def pairs(name: str, backend: Backend, config: bh.BuilderConfig) -> Iterator[Pair]:
    """What a build of a network fuses, each distinct pair once."""
    draft = make_draft(name, imported(name), config, backend, num_workers=1, trace=None)
    seen = set()
    for operation in draft.operations:
        problem = operation.problem
        if problem.kind != "pooled_convolution" or problem.text() in seen:
            continue
        seen.add(problem.text())
        (y,) = problem.outputs
        own = [TensorType(i.shape, y.dtype) for i in problem.inputs[: problem.num_own_inputs]]
        (between,) = convolution.DEFINITION.infer(problem.params.convolution, own)
        layout = dense_layout(between, y.format)
        apart = replace(
            problem, kind="convolution", params=problem.params.convolution, outputs=(layout,)
        )
        pooling = Problem("pooling", problem.params.pooling, (layout,), (False,), (y,))
        yield Pair(f"{name} {operation.name}", problem, apart, pooling)


def best_job(problem: Problem, tuner: Tuner, device: LocalDevice) -> tuple[str, MeasureJob]:
    """The fastest tactic of a problem, as its text and a job."""
    prepared = tuner.prepare(tuner.candidates(problem))
    timings = device.measure(prepared.jobs, 1)
    timed = [
        (timing.median_us, number)
        for number, timing in enumerate(timings)
        if timing.median_us is not None
    ]
    if not timed:
        raise SystemExit(f"no tactic runs: {[timing.error for timing in timings]}")
    number = min(timed)[1]
    return prepared.candidates[number].tactic.text, replace(prepared.jobs[number], group=0)


def in_turns(jobs: list[MeasureJob], device: LocalDevice, rounds: int) -> list[list[float]]:
    """Medians in microseconds of each job, one per round."""
    found: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for times, job in zip(found, jobs, strict=True):
            (timing,) = device.measure([job], 1)
            if timing.median_us is None:
                raise SystemExit(f"a tactic that ran fails now: {timing.error}")
            times.append(timing.median_us)
    return found


def main() -> None:
    """Print a row per pair."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="host-cpu")
    parser.add_argument("--networks", default="vgg16,yolov2")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    unknown = set(args.networks.split(",")) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown networks {sorted(unknown)}; known: {', '.join(NETWORKS)}")
    fingerprint, here = resolve_target(args.target)
    if not here:
        parser.error(f"target '{args.target}' is no device of this machine")
    with tempfile.TemporaryDirectory() as folder:
        backend = make_backend(
            fingerprint, compiler=bh.BuilderConfig().compiler, artifact_dir=folder, jobs=1,
            hardware=target_hardware(args.target),
        )  # fmt: skip
        opened = (
            cpu_tune_device(backend.toolchain, 0)
            if isinstance(backend, CpuBackend)
            else gpu_tune_device(int(here.removeprefix("cuda:")), 0)
        )
        device = LocalDevice(opened, lambda *_: None)
        tuner = Tuner(
            FamilyChoice(backend.families, backend.target), backend, TimingCache(), None,
            fingerprint_id="", conditions="", is_strict=False, workspace_limit_bytes=1 << 30,
            progress=lambda *_: None,
        )  # fmt: skip
        precision = "fp16" if fingerprint.device_kind == "cuda" else "fp32"
        config = bh.BuilderConfig(precision=precision, measure="none", is_checked=False)
        print(
            "| pair | fused us | convolution us | pooling us | fused / both | of minima | tactics |"
        )
        print("|---" * 7 + "|")
        for name in args.networks.split(","):
            for pair in pairs(name, backend, config):
                problems = (pair.fused, pair.convolution, pair.pooling)
                best = [best_job(problem, tuner, device) for problem in problems]
                times = in_turns([job for _, job in best], device, args.rounds)
                medians = [statistics.median(one) for one in times]
                cells = [
                    f"{median:.1f} ({min(one):.1f}–{max(one):.1f})"
                    for median, one in zip(medians, times, strict=True)
                ]
                minima = [min(one) for one in times]
                ratios = [f"{one[0] / (one[1] + one[2]):.3f}" for one in (medians, minima)]
                told = "; ".join(text for text, _ in best[:2])
                print(
                    f"| {pair.name} | {' | '.join(cells)} | {' | '.join(ratios)} | {told} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
