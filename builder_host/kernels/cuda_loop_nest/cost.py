"""Rough times of memory-bound CUDA kernels, for ranking only."""

from __future__ import annotations

from builder_host.kernels.family import Problem
from builder_host.targets.cuda import CudaTarget

LAUNCH_US = 2.0  # a dependent kernel: launch, first load, last store (H200 and Orin: 1 to 4)
_GBPS_PER_SM = (
    15.0  # where neither fingerprint nor board file tells (Nano 25 GB/s on 1 SM, H200 36)
)
_CLOCK_HZ = 1.2e9
_L2_SPEEDUP = 2.0  # tensors of one inference mostly stay in L2
FMA_PER_CLOCK = 128  # float multiply-adds of one SM


def memory_gbps(target: CudaTarget) -> float:
    """Memory bandwidth in 1e9 bytes/s, estimated when it is unknown."""
    return target.memory_gbps or _GBPS_PER_SM * target.num_sms


def clock_hz(target: CudaTarget) -> float:
    """Core clock in Hz, estimated when it is unknown."""
    return float(target.core_clock_hz) or _CLOCK_HZ


def clocks_us(clocks: float, target: CudaTarget) -> float:
    """Microseconds of core clocks."""
    return clocks / clock_hz(target) * 1e6


def stream_us(num_bytes: float, target: CudaTarget) -> float:
    """Microseconds to move bytes once between memory and all SMs, none of them in L2."""
    return num_bytes / (memory_gbps(target) * 1e3)


def bytes_us(num_bytes: float, target: CudaTarget) -> float:
    """Microseconds to move bytes once by all SMs."""
    rate = memory_gbps(target) * (_L2_SPEEDUP if num_bytes < target.l2_bytes / 2 else 1.0)
    return num_bytes / (rate * 1e3)


def tensors_bytes(problem: Problem) -> int:
    """Bytes of all inputs and outputs."""
    return sum(layout.stored_bytes for layout in (*problem.inputs, *problem.outputs))


def operations_us(count: float, target: CudaTarget, *, num_threads: float) -> float:
    """Microseconds for scalar operations shared by a number of threads.

    A lone thread finishes one dependent load and operation in about 8 clocks (they overlap), a
    full SM `FMA_PER_CLOCK` of them per clock, of which generated code reaches a quarter.
    """
    in_parallel = min(max(num_threads, 1.0) / 8.0, target.num_sms * FMA_PER_CLOCK / 4.0)
    return count / in_parallel / clock_hz(target) * 1e6
