"""The edge runtime's own cost: start to first inference, enqueue, memory over many inferences.

    python -m benchmarks.bench_runtime squeezenet.plan [--soak 100000]

The first figure is taken in fresh processes: from before `import runtime_edge` to the end of the
first inference, canary included, without NumPy.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import runtime_edge as rt

_BLOCK = 20
_IDLE_S = 0.005
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
    """What `enqueue` and `synchronize` add to the native call; medians, microseconds.

    Blocks of native calls and of enqueue + synchronize alternate, each without a pause inside, as a
    program that runs one inference after another. The same after 5 ms of sleep shows what waking
    an idle machine costs; releasing a semaphore on which a thread sleeps is its yardstick.
    """
    with rt.load(plan, canary=False) as engine, engine.create_context() as context:
        stream = engine.create_stream()
        bindings, _buffers = _addresses(engine)

        def inference(enqueue_us: list[float], whole_us: list[float]) -> None:
            start = time.perf_counter_ns()
            context.enqueue(bindings, stream)
            middle = time.perf_counter_ns()
            stream.synchronize()
            enqueue_us.append((middle - start) / 1e3)
            whole_us.append((time.perf_counter_ns() - start) / 1e3)

        rows: dict[str, list[float]] = {name: [] for name in ("enqueue", "whole", "native", "idle")}
        inference([], [])
        for _ in range(max(1, repeats // _BLOCK)):
            for _ in range(_BLOCK):
                inference(rows["enqueue"], rows["whole"])
            for _ in range(_BLOCK):
                start = time.perf_counter_ns()
                context._program.run()  # the native call alone
                rows["native"].append((time.perf_counter_ns() - start) / 1e3)
        for _ in range(_BLOCK):
            time.sleep(_IDLE_S)
            inference(rows["idle"], [])
        stream.close()
    medians = {f"{name}_us": statistics.median(row) for name, row in rows.items()}
    return {
        **medians,
        "overhead_us": medians["whole_us"] - medians["native_us"],
        "overhead_of_minima_us": min(rows["whole"]) - min(rows["native"]),
        "semaphore_us": semaphore_release_us(),
    }


def semaphore_release_us() -> float:
    """Median time to release a semaphore on which an idle thread sleeps."""
    semaphore, is_over, times_us = threading.Semaphore(0), threading.Event(), []

    def sleeper() -> None:
        while not is_over.is_set():
            semaphore.acquire()

    thread = threading.Thread(target=sleeper)
    thread.start()
    for _ in range(_BLOCK):
        time.sleep(_IDLE_S)
        start = time.perf_counter_ns()
        semaphore.release()
        times_us.append((time.perf_counter_ns() - start) / 1e3)
    is_over.set()
    semaphore.release()
    thread.join()
    return statistics.median(times_us)


def _addresses(engine: rt.Engine) -> tuple[dict[str, int], list[object]]:
    """Addresses of zeroed memory for every binding, and what keeps it alive."""
    buffers = [ctypes.create_string_buffer(engine.binding_bytes(b.name)) for b in engine.bindings]
    named = zip(engine.bindings, buffers, strict=True)
    return {b.name: ctypes.addressof(buffer) for b, buffer in named}, list(buffers)


def soak(plan: Path, count: int) -> dict[str, float]:
    """Resident memory in KiB before and after many inferences."""
    with rt.load(plan, canary=False) as engine, engine.create_context() as context:
        stream = engine.create_stream()
        bindings, _buffers = _addresses(engine)

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
