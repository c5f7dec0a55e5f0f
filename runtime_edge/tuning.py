"""Times candidates on this device: the builder's tuner calls it here, `edgeplan tune` on a board.

Candidates of one group solve the same problem; they are timed interleaved on the same buffers, so
that a change of clock or a neighbour's load meets all of them alike. Before each run caches are
overwritten: in a network the weights and the inputs of a layer were last touched one inference, or
one layer, ago.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from planformat.plan import Buffer
from runtime_edge.errors import DeviceError, LoadError

MIN_ROUNDS = 5
MAX_ROUNDS = 25
ROUND_BUDGET_US = 20_000.0  # measuring time per candidate that rounds beyond the least may take
HOPELESS = 2.0  # after the least rounds a candidate this many times behind the best is left alone


@dataclass(frozen=True, slots=True)
class TuneLaunch:
    """One launch of a candidate: work units on the CPU, a grid on CUDA.

    Attributes:
        symbol: exported function.
        grid: on the CPU the number of work units and 1, 1.
        block, cluster, shared_memory_bytes, is_dependent: CUDA only.
        scratch_bytes_per_worker: CPU only.
    """

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int] = (1, 1, 1)
    cluster: tuple[int, int, int] = (1, 1, 1)
    shared_memory_bytes: int = 0
    is_dependent: bool = False
    scratch_bytes_per_worker: int = 0


@dataclass(frozen=True, slots=True)
class TuneJob:
    """One candidate.

    Attributes:
        code: shared object or cubin that exports the symbols.
        launches: run in order; their times add up.
        argument_bytes: size in bytes of the buffer behind each argument.
        group: jobs with one number are interleaved.
    """

    code: Buffer
    launches: tuple[TuneLaunch, ...]
    argument_bytes: tuple[int, ...]
    group: int


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Median and percentiles in microseconds, or why the candidate failed."""

    median_us: float | None
    p20_us: float | None = None
    p80_us: float | None = None
    num_repeats: int = 0
    error: str = ""


class Timer(Protocol):
    """A candidate ready to be timed again and again."""

    def measure(self, repeats: int) -> list[float]:
        """Microseconds of each of `repeats` runs, caches overwritten before each."""
        ...

    def close(self) -> None:
        """Release what the timer holds."""
        ...


class TuneDevice(Protocol):
    """Makes timers on one device."""

    def buffers(self, sizes: Sequence[int]) -> list[int]:
        """Addresses of zeroed buffers, reused by the next call."""
        ...

    def timer(self, job: TuneJob, addresses: Sequence[int]) -> Timer:
        """Raises LoadError or DeviceError when the candidate cannot run."""
        ...


def tune(
    device: TuneDevice,
    jobs: Sequence[TuneJob],
    progress: Callable[[int, int], None] | None = None,
) -> list[TuneResult]:
    """Time every job; results in the order of the jobs. A failed candidate is a result."""
    groups: dict[int, list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(job.group, []).append(index)
    results: list[TuneResult] = [TuneResult(None, error="not measured")] * len(jobs)
    done = 0
    for members in groups.values():
        if progress is not None:
            progress(done, len(jobs))
        for index, result in _tune_group(device, jobs, members).items():
            results[index] = result
        done += len(members)
    return results


def _tune_group(
    device: TuneDevice, jobs: Sequence[TuneJob], members: Sequence[int]
) -> dict[int, TuneResult]:
    num_arguments = max(len(jobs[i].argument_bytes) for i in members)
    addresses = device.buffers(
        [max(_size(jobs[i], position) for i in members) for position in range(num_arguments)]
    )
    timers: dict[int, Timer] = {}
    times: dict[int, list[float]] = {}
    failed: dict[int, TuneResult] = {}
    try:
        for index in members:
            job = jobs[index]
            try:
                timers[index] = device.timer(job, addresses[: len(job.argument_bytes)])
                timers[index].measure(1)  # faults pages in, wakes threads, warms the clock
                times[index] = []
            except (LoadError, DeviceError) as error:
                failed[index] = TuneResult(None, error=str(error))
        _rounds(timers, times, failed)
    finally:
        for timer in timers.values():
            timer.close()
    return failed | {index: _summary(row) for index, row in times.items() if index not in failed}


def _rounds(
    timers: dict[int, Timer], times: dict[int, list[float]], failed: dict[int, TuneResult]
) -> None:
    active = list(times)
    for number in range(MAX_ROUNDS):
        for index in active:
            try:
                times[index].extend(timers[index].measure(1))
            except DeviceError as error:
                failed[index] = TuneResult(None, error=str(error))
        active = [index for index in active if index not in failed]
        if not active:
            return
        if number + 1 < MIN_ROUNDS:
            continue
        best = min(statistics.median(times[index]) for index in active)
        budget = max(ROUND_BUDGET_US, MIN_ROUNDS * best)
        active = [
            index
            for index in active
            if min(times[index]) <= best * HOPELESS and sum(times[index]) < budget
        ]


def _size(job: TuneJob, position: int) -> int:
    return job.argument_bytes[position] if position < len(job.argument_bytes) else 0


def _summary(times_us: Sequence[float]) -> TuneResult:
    ordered = sorted(times_us)
    last = len(ordered) - 1
    return TuneResult(
        round(statistics.median(ordered), 3),
        round(ordered[int(0.2 * last)], 3),
        round(ordered[int(0.8 * last)], 3),
        len(ordered),
    )


class CpuTuneDevice:
    """This machine's CPU."""

    def __init__(self, support: Buffer, *, num_workers: int, flush_bytes: int) -> None:
        """Make a device.

        Args:
            support: shared object with the CPU support code, which runs the candidates.
            num_workers: threads, the caller included.
            flush_bytes: memory that is overwritten before each run; 0: none.
        """
        from runtime_edge.device.cpu import CpuDevice
        from runtime_edge.device.cpu_native import CpuModule

        self._device = CpuDevice()
        self._support = CpuModule(support, "support code")
        self._num_workers = num_workers
        self._flush = bytearray(flush_bytes) if flush_bytes else None
        self._buffers: list[int] = []

    def buffers(self, sizes: Sequence[int]) -> list[int]:
        """Fresh zeroed memory; the last call's is given back."""
        self.close()
        self._buffers = [self._device.allocate(max(64, size), 64) for size in sizes]
        return self._buffers

    def timer(self, job: TuneJob, addresses: Sequence[int]) -> Timer:
        """Load the candidate's code."""
        return _CpuTimer(self._support, job, addresses, self._num_workers, self._flush)

    def close(self) -> None:
        """Give the buffers back."""
        for address in self._buffers:
            self._device.free(address)
        self._buffers = []


class _CpuTimer:
    def __init__(
        self,
        support: Any,
        job: TuneJob,
        addresses: Sequence[int],
        num_workers: int,
        flush: bytearray | None,
    ) -> None:
        from runtime_edge.device.cpu_timing import CpuModule, CpuTimer, TimedLaunch

        self._module = CpuModule(job.code, job.launches[0].symbol)
        self._flush = flush
        launches = [
            TimedLaunch(
                self._module.address(launch.symbol),
                tuple(addresses),
                launch.grid[0],
                launch.scratch_bytes_per_worker,
            )
            for launch in job.launches
        ]
        self._timer = CpuTimer(support, launches, num_workers=num_workers)

    def measure(self, repeats: int) -> list[float]:
        return self._timer.measure(repeats, flush=self._flush)

    def close(self) -> None:
        self._timer.close()
