"""Times kernels outside of any plan, for the builder's tuner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.cpu import CpuDevice
from runtime_edge.device.cpu_native import CpuAbi, CpuModule, StepDesc
from runtime_edge.device.cpu_program import CpuProgram
from runtime_edge.memory import ALIGNMENT_BYTES, round_up

__all__ = ["CpuModule", "CpuTimer", "TimedLaunch", "time_launches"]


@dataclass(frozen=True, slots=True)
class TimedLaunch:
    """One launch of a candidate.

    Attributes:
        function: address of the kernel (`CpuModule.address`).
        arguments: addresses, in the kernel's order; the caller keeps the memory alive.
        num_units: independent work units.
        scratch_bytes_per_worker: private memory of each worker.
        min_units: smallest share that a worker takes at once.
    """

    function: int
    arguments: tuple[int, ...]
    num_units: int
    scratch_bytes_per_worker: int = 0
    min_units: int = 1


class CpuTimer:
    """Launches in order with a barrier after each, ready to be timed again and again.

    Timers of several candidates may be alive together, so that their runs can be interleaved; their
    idle threads sleep. One timer is for one thread at a time.
    """

    def __init__(
        self, module: CpuModule, launches: Sequence[TimedLaunch], *, num_workers: int = 1
    ) -> None:
        """Prepare the launches.

        Args:
            module: any loaded module with the CPU support code; the kernels may lie elsewhere.
            launches: run in order.
            num_workers: threads, the caller included.
        """
        stride = round_up(
            max((launch.scratch_bytes_per_worker for launch in launches), default=0),
            ALIGNMENT_BYTES,
        )
        self._device = CpuDevice()
        self._scratch = (
            self._device.allocate(stride * num_workers, ALIGNMENT_BYTES) if stride else 0
        )
        steps: list[StepDesc] = []
        args: list[int] = []
        for launch in launches:
            steps.append(
                StepDesc(launch.function, len(args), launch.num_units, launch.min_units, 0)
            )
            args.extend(launch.arguments)
        self._program = CpuProgram(
            CpuAbi(module),
            steps,
            args,
            (),
            num_bindings=0,
            num_workers=num_workers,
            scratch=self._scratch,
            scratch_stride_bytes=stride,
            keep=(module, self._device),
        )

    def run(self) -> None:
        """Run all launches once."""
        self._program.run()

    def measure(self, repeats: int, *, flush: Any = None) -> list[float]:
        """Microseconds of each of `repeats` runs of all launches.

        Args:
            repeats: number of runs; nothing is thrown away.
            flush: None, or a writable buffer that is written before each run outside of the timed
                part, so that caches hold nothing of the launches.
        """
        held = None if flush is None else HeldBuffer(flush, is_writable=True)
        return self._program.measure(repeats, held)

    def close(self) -> None:
        """Stop the threads and free the scratch memory."""
        self._program.close()
        if self._scratch:
            self._device.free(self._scratch)
            self._scratch = 0


def time_launches(
    module: CpuModule,
    launches: Sequence[TimedLaunch],
    *,
    num_workers: int = 1,
    repeats: int = 10,
    flush: Any = None,
) -> list[float]:
    """Microseconds of each of `repeats` runs of all launches; arguments as in `CpuTimer`."""
    timer = CpuTimer(module, launches, num_workers=num_workers)
    try:
        return timer.measure(repeats, flush=flush)
    finally:
        timer.close()
