"""The CUDA runtime on real plans: load, device memory, enqueue, streams, long runs, foreign plans.

    python -m benchmarks.bench_gpu_runtime resnet50.plan [--foreign jetson.plan ...] [--soak 100000]

Device memory is what the driver's own counter lost between the context's creation and the running
plan. Throughput of two streams: two threads, two contexts, one engine, each output compared with
that of one stream. Needs pycuda and NumPy.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from pathlib import Path

import numpy as np

import runtime_edge as rt
from planformat.canary import canary_input
from planformat.errors import PlanError
from runtime_edge.device.cuda import CudaDevice

_MIB = 1 << 20
_INFERENCES = 2000
_IN_FLIGHT = 8


class Job:
    """A context with a stream and device memory for every binding, inputs filled."""

    def __init__(self, engine: rt.Engine) -> None:
        """Take memory and copy the canary's inputs."""
        self.engine = engine
        self.context = engine.create_context()
        self.stream = engine.create_stream()
        self.bindings: dict[str, int] = {}
        for index, binding in enumerate(engine.bindings):
            size = engine.binding_bytes(binding.name)
            address = engine.device.allocate(size, 256)
            if binding.is_input:
                shape = engine.binding_shape(binding.name)
                values = canary_input(1, index, int(np.prod(shape)), binding.dtype)
                engine.device.write(address, bytes(values))
            self.bindings[binding.name] = address

    def run(self, count: int) -> None:
        """`count` inferences, at most `_IN_FLIGHT` of them enqueued."""
        for number in range(count):
            self.context.enqueue(self.bindings, self.stream)
            if number % _IN_FLIGHT == _IN_FLIGHT - 1:
                self.stream.synchronize()
        self.stream.synchronize()

    def outputs(self) -> list[bytes]:
        """Content of all outputs."""
        return [
            bytes(self.engine.device.read(self.bindings[b.name], self.engine.binding_bytes(b.name)))
            for b in self.engine.bindings
            if not b.is_input
        ]

    def close(self) -> None:
        """Give everything back."""
        self.context.close()
        self.stream.close()
        for address in self.bindings.values():
            self.engine.device.free(address)


def load_ms(plan: Path, device: CudaDevice, runs: int = 5) -> float:
    """Median time of load and context creation, the driver's context being there."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        engine = rt.load(plan, device=device)
        context = engine.create_context()
        times.append((time.perf_counter() - start) * 1e3)
        context.close()
        engine.close()
    return statistics.median(times)


def enqueue_us(job: Job) -> float:
    """Median host time of `enqueue` with room in the stream."""
    times = []
    for number in range(_INFERENCES):
        start = time.perf_counter_ns()
        job.context.enqueue(job.bindings, job.stream)
        times.append((time.perf_counter_ns() - start) / 1e3)
        if number % _IN_FLIGHT == _IN_FLIGHT - 1:
            job.stream.synchronize()
    return statistics.median(times)


def per_second(jobs: list[Job]) -> float:
    """Inferences per second of all jobs together, a thread each."""
    for job in jobs:
        job.run(50)
    threads = [threading.Thread(target=job.run, args=(_INFERENCES,)) for job in jobs]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _INFERENCES * len(jobs) / (time.perf_counter() - start)


def report(plan: Path, soak: int) -> None:
    """Print the figures of one plan. Raises RuntimeError when a result is wrong."""
    device = CudaDevice(0)
    rt.load(plan, device=device).close()  # the driver's own state is there from now on
    print(f"{plan.name}: load and context {load_ms(plan, device):.1f} ms (median of 5)")
    free = [device.free_memory()[0]]
    engine = rt.load(plan, device=device)
    free.append(device.free_memory()[0])
    first = Job(engine)
    free.append(device.free_memory()[0])
    first.run(1)
    free.append(device.free_memory()[0])
    taken = free[0] - free[-1]
    bindings = sum(engine.binding_bytes(b.name) for b in engine.bindings)
    weights, arena = engine.weights_bytes, engine.context_bytes()
    profile = engine.profile()
    print(
        f"  device memory {taken / _MIB:.2f} MiB = weights {weights / _MIB:.2f} + arena "
        f"{arena / _MIB:.2f} (lower bound {profile.arena_lower_bound_bytes / _MIB:.2f}) + bindings "
        f"{bindings / _MIB:.2f} + {(taken - weights - arena - bindings) / _MIB:.2f}; by stage: "
        + ", ".join(
            f"{what} {(a - b) / _MIB:.2f}"
            for what, a, b in zip(("load", "context", "first run"), free, free[1:], strict=False)
        )
    )
    wanted = first.outputs()
    print(f"  enqueue {enqueue_us(first):.1f} us of host time (median)")
    second = Job(engine)
    one = statistics.median(per_second([first]) for _ in range(3))
    two = statistics.median(per_second([first, second]) for _ in range(3))
    for job in (first, second):
        if job.outputs() != wanted:
            raise RuntimeError(f"{plan}: two streams give other outputs than one")
    print(
        f"  one stream {one:,.0f} inferences/s, two threads with two streams {two:,.0f}/s "
        f"({two / one:.2f}x), outputs equal"
    )
    free, _ = device.free_memory()
    first.run(soak)
    lost = free - device.free_memory()[0]
    if first.outputs() != wanted:
        raise RuntimeError(f"{plan}: outputs changed within {soak} inferences")
    print(f"  {soak:,} inferences: device memory changed by {lost} bytes, outputs equal")
    first.close()
    second.close()
    engine.close()


def refusal(plan: Path) -> str:
    """Why a plan for another device is refused here. Raises RuntimeError when it is not."""
    try:
        rt.load(plan)
    except (PlanError, rt.LoadError) as error:
        return str(error)
    raise RuntimeError(f"{plan} is for another device and was loaded")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("plans", nargs="+", type=Path, metavar="PLAN")
    parser.add_argument("--foreign", action="append", default=[], type=Path, metavar="PLAN")
    parser.add_argument("--soak", type=int, default=100_000, metavar="N")
    args = parser.parse_args()
    for plan in args.plans:
        report(plan, args.soak)
    for plan in args.foreign:
        print(f"{plan.name} is refused: {refusal(plan)}")


if __name__ == "__main__":
    main()
