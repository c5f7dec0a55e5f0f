"""Time that a problem's tensors need to pass through memory or cache once, for cost models."""

from __future__ import annotations

from builder_host.kernels.family import Problem
from builder_host.targets.target import CpuTarget

_CACHE_SPEEDUP = 4.0  # tensors that fit into half of the last-level cache, against memory


def traffic_us(problem: Problem, target: CpuTarget) -> float:
    """Microseconds to move all inputs and outputs once with one worker."""
    layouts = (*problem.inputs, *problem.outputs)
    moved_bytes = sum(layout.stored_bytes for layout in layouts)
    rate_gbps = target.memory_gbps
    if moved_bytes <= max(target.l2_bytes, target.l3_bytes) // 2:
        rate_gbps *= _CACHE_SPEEDUP
    return moved_bytes / (rate_gbps * 1e3)


def vector_operations_us(count: float, target: CpuTarget) -> float:
    """Microseconds for a number of vector operations at the rate of multiply-adds."""
    return count * 2 * target.vector_elems / (target.fma_gflops_per_core * 1e3)
