"""Plans on a CUDA GPU against PyTorch: cuDNN channels last, and torch.compile, in CUDA graphs.

Builds each topology for this GPU (candidates are timed here), checks the output against PyTorch in
float32, then replays all sides in alternating blocks. Needs pycuda, torch, onnx, and an installed
CUDA toolkit (`edgeplan toolchain install`).

    python -m benchmarks.bench_gpu --precision fp16 --batch 1 [--compile] [squeezenet_v1.1 ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

import builder_host as bh
import runtime_edge as rt
from benchmarks.topologies import TOPOLOGIES
from benchmarks.torch_peer import Replay
from builder_host.builder import write_tuning_bundle
from builder_host.tune.timing_cache import load_timing_cache, parse_timing_cache
from planformat.fingerprint import fingerprint_to_json
from runtime_edge.bundle import cache_text, read_bundle
from runtime_edge.device.cuda_probe import probe_gpu
from runtime_edge.tuning import tune
from runtime_edge.tuning_cuda import CudaTuneDevice

BLOCKS, REPLAYS = 9, 200


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with another batch size."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def build_plan(
    model: onnx.ModelProto, precision: str, folder: Path, cache: Path
) -> tuple[Path, bh.BuiltPlan, dict[str, float]]:
    """Compile, tune on this GPU, build; times in seconds."""
    (folder / "gpu.json").write_text(fingerprint_to_json(probe_gpu(0)))
    config = bh.BuilderConfig(
        target=str(folder / "gpu.json"),
        precision=precision,
        measure="none",
        timing_cache=cache,
        is_checked=False,
    )
    network = bh.import_onnx(model)
    start = time.perf_counter()
    count = write_tuning_bundle(network, folder / "b.zip", config)
    compiled = time.perf_counter()
    if count:
        bundle = read_bundle(folder / "b.zip")
        device = CudaTuneDevice(0, is_flushing=bundle.flush_bytes > 0)
        results = tune(device, bundle.jobs)
        device.close()
        timings = parse_timing_cache(cache_text(bundle, results).splitlines(), "bundle")
        if cache.exists():
            timings.merge(load_timing_cache(cache))
        timings.save(cache)
    tuned = time.perf_counter()
    built = bh.build(network, config)
    path = folder / "model.plan"
    built.save(path)
    times = {
        "compile_s": compiled - start,
        "tune_s": tuned - compiled,
        "emit_s": time.perf_counter() - tuned,
        "candidates": count,
    }
    return path, built, times


class PlanReplay:
    """A plan on device memory of its own."""

    def __init__(self, path: Path, values: np.ndarray) -> None:
        """Load the plan and upload the input."""
        start = time.perf_counter()
        self.engine = rt.load(path)
        self.load_ms = (time.perf_counter() - start) * 1e3
        self.context = self.engine.create_context()
        self.stream = self.engine.create_stream()
        self.x = torch.from_numpy(values).cuda()
        self.y = torch.empty((values.shape[0], 1000), device="cuda")
        torch.cuda.synchronize()
        self.bindings = {"data": self.x.data_ptr(), "prob": self.y.data_ptr()}

    def result(self) -> np.ndarray:
        """One inference."""
        self.replay()
        self.stream.synchronize()
        return self.y.cpu().numpy()

    def replay(self) -> None:
        """Enqueue one inference."""
        self.context.enqueue(self.bindings, self.stream)


def interleaved_us(sides: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Microseconds per replay of each side, BLOCKS blocks of REPLAYS."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for replay in sides.values():
        for _ in range(REPLAYS):
            replay()
        torch.cuda.synchronize()
    for _ in range(BLOCKS):
        for name, replay in sides.items():
            start = time.perf_counter_ns()
            for _ in range(REPLAYS):
                replay()
            torch.cuda.synchronize()
            times[name].append((time.perf_counter_ns() - start) / 1e3 / REPLAYS)
    return times


def host_us(replay: Callable[[], None], synchronize: Callable[[], None]) -> float:
    """Median host time of one enqueue with an idle stream."""
    times = []
    for _ in range(300):
        synchronize()
        start = time.perf_counter_ns()
        replay()
        times.append((time.perf_counter_ns() - start) / 1e3)
    synchronize()
    return statistics.median(times)


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def bench_one(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Build, check, time one topology."""
    model = with_batch(TOPOLOGIES[name](), args.batch)
    values = np.random.default_rng(0).standard_normal((args.batch, 3, 224, 224)).astype(np.float32)
    half = args.precision == "fp16"
    reference = Replay(model, values, half=False, mode="cudnn").result()
    with tempfile.TemporaryDirectory() as folder:
        path, built, times = build_plan(model, args.precision, Path(folder), Path(args.cache))
        ours = PlanReplay(path, values)
        peer = Replay(model, values, half=half, mode="cudnn")
        row: dict[str, object] = {
            "network": name,
            "error": relative(ours.result(), reference),
            "cudnn_error": relative(peer.result(), reference),
            "steps": len(built.report.operations),
            "arena_bytes": built.report.arena_bytes,
            "arena_lower_bound_bytes": built.report.arena_lower_bound_bytes,
            "weights_bytes": built.report.weights_bytes,
            "load_ms": ours.load_ms,
            "tuning_failed": built.report.tuning.num_failed,
            **times,
        }
        if not float(str(row["error"])) < (0.05 if half else 1e-3):
            row["wrong"] = True
        sides = {"edgeplan": ours.replay, "cudnn": peer.replay}
        if args.compile:
            mode = "max-autotune-no-cudagraphs"
            sides["compile"] = Replay(model, values, half=half, mode=mode).replay
        for side, samples in interleaved_us(sides).items():
            row[f"{side}_us"] = statistics.median(samples)
        row["enqueue_us"] = host_us(ours.replay, ours.stream.synchronize)
        if args.steps:
            row["step_us"] = [
                [step.name, round(step.time_us, 2), step.built_us, step.tactic]
                for step in ours.context.measure_steps(ours.bindings, repeats=20)
            ]
    return row


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also torch.compile max-autotune")
    parser.add_argument("--cache", default="gpu.cache", help="timing cache")
    parser.add_argument("--steps", action="store_true", help="also the time of every step")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, {properties.multi_processor_count} SMs, torch {torch.__version__}")
    print(f"{args.precision}, batch {args.batch}; microseconds per graph replay, medians")
    rows = []
    for name in args.networks or TOPOLOGIES:
        try:
            row = bench_one(name, args)
        except Exception as error:
            print(f"{name}: failed: {type(error).__name__}: {error}", flush=True)
            if args.networks:
                raise
            continue
        rows.append(row)
        columns = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
        print("; ".join(c for c in columns if not c.startswith("step_us")), flush=True)
        for step in row.get("step_us", []):  # type: ignore[attr-defined]
            print("   ", *step)
        if args.json:
            Path(args.json).write_text(json.dumps({"device": properties.name, "rows": rows}))
    return 0 if rows and not any("wrong" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
