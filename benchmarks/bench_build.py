"""What a build costs: processor seconds, wall time and memory of whole processes, cold and cached.

    python -m benchmarks.bench_build [--networks resnet50] [--cases cpu,orin,orin-bundle]

Each build is a fresh `python` that imports a model and builds it, as the command line does, into an
artifact store of its own: empty for `cold`, left by the cold build for `cached` (with the timing
cache, which then holds every candidate). Processor seconds count the process, its compilers and its
threads; half of them bound the time on two free cores, whatever else the machine does meanwhile.
Python may keep its byte code, as it does by default. Memory is the sum of the resident sets of the
whole process tree, sampled, so that pages which processes share count more than once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.topologies import TOPOLOGIES

_SAMPLE_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CHILD = """
import sys
from builder_host.builder import build, write_tuning_bundle
from builder_host.config import BuilderConfig
from builder_host.importers.model_file import import_model_file
model, store, output, target, precision, measure, jobs = sys.argv[1:]
config = BuilderConfig(
    target=target, artifact_dir=store, timing_cache=store + "/timings", precision=precision,
    measure="local" if measure == "local" else "none", num_jobs=int(jobs),
)
network = import_model_file(model, None, shapes={}, outputs=None)
if measure == "bundle":
    print(write_tuning_bundle(network, output, config))
else:
    built = build(network, config)
    built.save(output)
    print(built.report.tuning.num_candidates)
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of build: target, precision, and `local`, `none` or `bundle`."""

    target: str
    precision: str
    measure: str


CASES = {
    "cpu": Case("host-cpu", "fp32", "local"),
    "cpu-predicted": Case("host-cpu", "fp32", "none"),
    "orin": Case("jetson-agx-orin", "fp16", "none"),
    "orin-bundle": Case("jetson-agx-orin", "fp16", "bundle"),
    "h200": Case("h200", "fp16", "none"),
    "h200-bundle": Case("h200", "fp16", "bundle"),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one build: seconds, bytes, and what the build counted (candidates)."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    num_candidates: int


def run_build(model: Path, store: Path, output: Path, case: Case, jobs: int) -> Cost:
    """Build once in a fresh process.

    Raises:
        RuntimeError: the build fails; the text ends with its messages.
    """
    arguments = [str(model), str(store), str(output), case.target, case.precision, case.measure]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *arguments, str(jobs)],
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            stdout=subprocess.PIPE,
            stderr=messages,
        )
        assert process.stdout is not None
        peak = _PeakMemory(process.pid)
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - start
        peak_bytes = peak.stop()
        if process.returncode != 0:
            messages.seek(0)
            raise RuntimeError(messages.read().decode(errors="replace")[-2000:])
    peak_bytes = max(peak_bytes, usage.ru_maxrss * 1024)
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, peak_bytes, int(told))


class _PeakMemory:
    """The largest sum of the resident sets of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak_bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Bytes."""
        self._is_over.set()
        self._thread.join()
        return self._peak_bytes

    def _sample(self) -> None:
        while not self._is_over.wait(_SAMPLE_S):
            total = sum(_resident_bytes(pid) for pid in _tree(self._pid))
            self._peak_bytes = max(self._peak_bytes, total)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):  # it ended meanwhile
        return 0


def _line(network: str, name: str, state: str, cost: Cost) -> str:
    return (
        f"| {network} | {name} | {state} | {cost.cpu_s:.1f} | {cost.cpu_s / 2:.1f} | "
        f"{cost.wall_s:.1f} | {cost.peak_bytes / 1e6:,.0f} | {cost.num_candidates} |"
    )


def main() -> None:
    """Print a table, one build per line as it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", default="resnet50", help=f"of {', '.join(TOPOLOGIES)}")
    parser.add_argument("--cases", default="cpu,orin,orin-bundle", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once (default: 2)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    rows = []
    print("| network | case | state | CPU s | CPU s / 2 | wall s | peak MB | candidates |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgeplan-bench-build-") as folder:
        for network in args.networks.split(","):
            model = Path(folder) / f"{network}.onnx"
            model.write_bytes(TOPOLOGIES[network]().SerializeToString())
            for name in args.cases.split(","):
                store = Path(folder) / f"{network}-{name}"
                store.mkdir()
                for state in ("cold", "cached"):
                    output = store / "out"
                    cost = run_build(model, store, output, CASES[name], args.jobs)
                    print(_line(network, name, state, cost), flush=True)
                    row = {"network": network, "case": name, "state": state}
                    rows.append({**row, "cpu_s": cost.cpu_s, "wall_s": cost.wall_s})
                    rows[-1] |= {"peak_bytes": cost.peak_bytes}
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
