"""The edge runtime's own cost: start to first inference, enqueue, memory over many inferences.

    python -m benchmarks.bench_runtime squeezenet.plan [--soak 100000]

The first figure is taken in fresh processes: from before `import runtime_edge` to the end of the
first inference, canary included, without NumPy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import runtime_edge as rt

_FIRST = """
import sys, time
start = time.perf_counter()
import runtime_edge
imported = time.perf_counter()
from array import array
engine = runtime_edge.load(sys.argv[1])
loaded = time.perf_counter()
context, stream = engine.create_context(), engine.create_stream()
buffers = {
    b.name: bytearray(engine.binding_bytes(b.name)) for b in engine.bindings
}
addresses = {}
import ctypes
for name, data in buffers.items():
    addresses[name] = ctypes.addressof(ctypes.c_char.from_buffer(data))
context.enqueue(addresses, stream)
stream.synchronize()
done = time.perf_counter()
assert "numpy" not in sys.modules
print(imported - start, loaded - imported, done - loaded, done - start)
"""


def first_inference(plan: Path, runs: int) -> dict[str, float]:
    """Medians in milliseconds over fresh processes."""
    rows = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", _FIRST, str(plan)], check=True, capture_output=True, text=True
        )
        rows.append([float(text) * 1e3 for text in done.stdout.split()])
    names = ("import_ms", "load_ms", "first_inference_ms", "total_ms")
    return dict(zip(names, map(statistics.median, zip(*rows, strict=True)), strict=True))


def enqueue_cost(plan: Path, repeats: int) -> dict[str, float]:
    """Enqueue alone, and enqueue plus synchronise over the native call; medians, microseconds."""
    import ctypes

    with rt.load(plan, canary=False) as engine, engine.create_context() as context:
        stream = engine.create_stream()
        buffers = [
            ctypes.create_string_buffer(engine.binding_bytes(b.name)) for b in engine.bindings
        ]
        bindings = {
            b.name: ctypes.addressof(buffer)
            for b, buffer in zip(engine.bindings, buffers, strict=True)
        }
        context.enqueue(bindings, stream)
        stream.synchronize()
        enqueue, whole, native = [], [], []
        for _ in range(repeats):
            start = time.perf_counter_ns()
            context.enqueue(bindings, stream)
            middle = time.perf_counter_ns()
            stream.synchronize()
            end = time.perf_counter_ns()
            enqueue.append((middle - start) / 1e3)
            whole.append((end - start) / 1e3)
            start = time.perf_counter_ns()
            context._program.run()  # the native call alone
            native.append((time.perf_counter_ns() - start) / 1e3)
        stream.close()
    overhead = statistics.median(whole) - statistics.median(native)
    return {
        "enqueue_us": statistics.median(enqueue),
        "native_us": statistics.median(native),
        "overhead_us": overhead,
    }


def soak(plan: Path, count: int) -> dict[str, float]:
    """Resident memory in KiB before and after many inferences."""
    import ctypes

    with rt.load(plan, canary=False) as engine, engine.create_context() as context:
        stream = engine.create_stream()
        buffers = [
            ctypes.create_string_buffer(engine.binding_bytes(b.name)) for b in engine.bindings
        ]
        bindings = {
            b.name: ctypes.addressof(buffer)
            for b, buffer in zip(engine.bindings, buffers, strict=True)
        }

        def run(times: int) -> None:
            for number in range(times):
                context.enqueue(bindings, stream)
                if number % 16 == 15:
                    stream.synchronize()
            stream.synchronize()

        run(1000)
        before = _resident_kib()
        run(count)
        after = _resident_kib()
        stream.close()
    return {"inferences": count, "resident_before_kib": before, "resident_after_kib": after}


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--soak", type=int, default=0, help="inferences for the memory figure")
    args = parser.parse_args()
    figures = {
        "first": first_inference(args.plan, args.runs),
        "enqueue": enqueue_cost(args.plan, args.repeats),
    }
    if args.soak:
        figures["soak"] = soak(args.plan, args.soak)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
