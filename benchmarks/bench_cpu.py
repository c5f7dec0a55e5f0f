"""Six CNN topologies on the CPU, float32, batch 1: edgeplan against ONNX Runtime.

Both sides run in this process with the same number of threads, in alternating blocks; outputs are
compared first. Run on an otherwise idle machine:

    python -m benchmarks.bench_cpu --threads 1 --timing-cache bench.cache
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import builder_host as bh
import runtime_edge as rt
from benchmarks.peers import interleaved, ort_session
from benchmarks.topologies import TOPOLOGIES


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
    session = ort_session(model.SerializeToString(), args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.plan"
        built.save(path)
        context = rt.load(path).create_context()
        ours = context.execute({"data": values})["prob"].copy()
        theirs = session.run(None, {"data": values})[0]
        error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        if not error < 1e-3:
            raise SystemExit(f"{name}: outputs differ by {error:.3g}, nothing was timed")
        mine, peer = interleaved(
            [
                lambda: context.execute({"data": values}),
                lambda: session.run(None, {"data": values}),
            ],
            seconds=args.seconds,
        )
    return {
        "network": name,
        "edgeplan_ms": mine.median_us / 1e3,
        "edgeplan_p20_p80_ms": [mine.p20_us / 1e3, mine.p80_us / 1e3],
        "onnxruntime_ms": peer.median_us / 1e3,
        "onnxruntime_p20_p80_ms": [peer.p20_us / 1e3, peer.p80_us / 1e3],
        "ratio": peer.median_us / mine.median_us,
        "ratio_of_minima": peer.min_us / mine.min_us,
        "num_calls": mine.num_calls,
        "relative_error": error,
        "build_s": build_s,
        "arena_bytes": built.report.arena_bytes,
        "arena_lower_bound_bytes": built.report.arena_lower_bound_bytes,
        "weights_bytes": built.report.weights_bytes,
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"default: all of {', '.join(TOPOLOGIES)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="timing per network")
    parser.add_argument("--timing-cache")
    parser.add_argument("--check", action="store_true", help="also check against float64")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = set(args.networks) - set(TOPOLOGIES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(TOPOLOGIES)}")
    rows = []
    head = f"{'network':16} {'edgeplan ms':>12} {'ORT ms':>9} {'ratio':>6} {'of minima':>9}"
    print(f"{head} {'error':>8} {'build s':>8}", file=sys.stderr)
    for name in args.networks or TOPOLOGIES:
        row = bench_one(name, args)
        rows.append(row)
        print(
            f"{name:16} {row['edgeplan_ms']:12.2f} {row['onnxruntime_ms']:9.2f} "
            f"{row['ratio']:6.2f} {row['ratio_of_minima']:9.2f} {row['relative_error']:8.1e} "
            f"{row['build_s']:8.1f}",
            file=sys.stderr,
        )
    mean = math.exp(sum(math.log(float(str(row["ratio"]))) for row in rows) / len(rows))
    print(f"geometric mean of the ratios: {mean:.3f}, {args.threads} thread(s)", file=sys.stderr)
    if args.json:
        print(json.dumps({"threads": args.threads, "geometric_mean": mean, "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
