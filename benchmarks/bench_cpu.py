"""Six CNN topologies on the CPU, float32, batch 1: edgeplan against ONNX Runtime and OpenVINO.

All sides run in this process with the same number of threads, in alternating blocks; outputs are
compared first. Run on an otherwise idle machine:

    python -m benchmarks.bench_cpu --threads 1 --timing-cache bench.cache --openvino

OpenVINO is asked only with `--openvino` (`pip install openvino`): latency hint, one stream, float32
stated, because it would take bfloat16 on CPUs that have it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import builder_host as bh
import runtime_edge as rt
from benchmarks.peers import Latency, interleaved, openvino_call, ort_session
from benchmarks.topologies import TOPOLOGIES

_MAX_ERROR = 1e-3  # relative L2 between two runtimes that both compute in float32


def bench_one(name: str, args: argparse.Namespace) -> dict[str, object]:
    """Build, check and time one topology; a row of the table."""
    model = TOPOLOGIES[name]()
    start = time.perf_counter()
    built = bh.build(
        bh.import_onnx(model),
        bh.BuilderConfig(
            num_threads=args.threads, timing_cache=args.timing_cache, is_checked=args.check
        ),
    )
    build_s = time.perf_counter() - start
    values = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    encoded = model.SerializeToString()
    session = ort_session(encoded, args.threads)
    peers: dict[str, Callable[[], np.ndarray]] = {
        "onnxruntime": lambda: session.run(None, {"data": values})[0]
    }
    if args.openvino:
        call = openvino_call(encoded, args.threads, {"data": values})
        peers["openvino"] = lambda: call()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.plan"
        built.save(path)
        context = rt.load(path).create_context()
        ours = context.execute({"data": values})["prob"].copy()
        errors = {}
        for peer, function in peers.items():
            theirs = function()
            errors[peer] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
            if not errors[peer] < _MAX_ERROR:
                raise SystemExit(
                    f"{name}: outputs differ from those of {peer} by {errors[peer]:.3g}, allowed "
                    f"is {_MAX_ERROR:g}; nothing was timed"
                )
        mine, *others = interleaved(
            [lambda: context.execute({"data": values}), *peers.values()], seconds=args.seconds
        )
    times = dict(zip(peers, others, strict=True))
    row: dict[str, object] = {"network": name}
    for side, latency in {"edgeplan": mine, **times}.items():
        row |= _times_ms(side, latency)
    for peer, latency in times.items():
        prefix = "" if peer == "onnxruntime" else f"{peer}_"
        row[f"{prefix}ratio"] = latency.median_us / mine.median_us
        row[f"{prefix}ratio_of_minima"] = latency.min_us / mine.min_us
        row[f"{prefix}relative_error"] = errors[peer]
    return row | {
        "num_calls": mine.num_calls,
        "build_s": build_s,
        "arena_bytes": built.report.arena_bytes,
        "arena_lower_bound_bytes": built.report.arena_lower_bound_bytes,
        "weights_bytes": built.report.weights_bytes,
    }


def _times_ms(side: str, latency: Latency) -> dict[str, object]:
    return {
        f"{side}_ms": latency.median_us / 1e3,
        f"{side}_p20_p80_ms": [latency.p20_us / 1e3, latency.p80_us / 1e3],
    }


def _mean_ratio(rows: list[dict[str, object]], column: str) -> float:
    return math.exp(sum(math.log(float(str(row[column]))) for row in rows) / len(rows))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"default: all of {', '.join(TOPOLOGIES)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="timing per network")
    parser.add_argument("--timing-cache")
    parser.add_argument("--openvino", action="store_true", help="time OpenVINO too")
    parser.add_argument("--check", action="store_true", help="also check against float64")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = set(args.networks) - set(TOPOLOGIES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(TOPOLOGIES)}")
    rows = []
    head = f"{'network':16} {'edgeplan ms':>12} {'ORT ms':>9} {'ratio':>6} {'of minima':>9}"
    more = f" {'OpenVINO ms':>12} {'ratio':>6}" if args.openvino else ""
    print(f"{head} {'error':>8} {'build s':>8}{more}", file=sys.stderr)
    for name in args.networks or TOPOLOGIES:
        row = bench_one(name, args)
        rows.append(row)
        more = f" {row['openvino_ms']:12.2f} {row['openvino_ratio']:6.2f}" if args.openvino else ""
        print(
            f"{name:16} {row['edgeplan_ms']:12.2f} {row['onnxruntime_ms']:9.2f} "
            f"{row['ratio']:6.2f} {row['ratio_of_minima']:9.2f} {row['relative_error']:8.1e} "
            f"{row['build_s']:8.1f}{more}",
            file=sys.stderr,
        )
    found = {"threads": args.threads, "geometric_mean": _mean_ratio(rows, "ratio"), "rows": rows}
    means = f"{found['geometric_mean']:.3f} to ONNX Runtime"
    if args.openvino:
        found["openvino_geometric_mean"] = _mean_ratio(rows, "openvino_ratio")
        means += f", {found['openvino_geometric_mean']:.3f} to OpenVINO"
    print(f"geometric mean of the ratios: {means}; {args.threads} thread(s)", file=sys.stderr)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
