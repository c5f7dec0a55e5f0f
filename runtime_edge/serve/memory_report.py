"""How much device memory plans will take, from their files alone, and whether that fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planformat.plan import Plan, Profile, Variant
from planformat.tensors import storage_bytes
from runtime_edge.memory import ALIGNMENT_BYTES, round_up

REGION_ALIGNMENT_BYTES = 256
"""Of each binding in a stream's memory: what CUDA aligns allocations to."""


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes that one plan takes.

    Attributes:
        weights: its own; on the CPU they are pages of the file.
        arena: activations and scratch of the largest profile; io: bindings of the largest profile.
            Both are shared by the plans of a stream.
    """

    weights: int
    arena: int
    io: int


def memory_needs(plan: Plan, variant: Variant, threads: int, usable_workers: int) -> MemoryNeeds:
    """What a plan takes on a device.

    Args:
        plan: the plan.
        variant: the one that was chosen.
        threads: per context; 0 is as tuned, as far as usable_workers go.
        usable_workers: of the device.
    """
    arenas = [
        context_bytes(profile, threads or min(profile.num_workers, usable_workers))
        for profile in variant.profiles
    ]
    ios = [io_bytes(plan, profile) for profile in variant.profiles]
    return MemoryNeeds(len(plan.weights), max(arenas), max(ios))


def context_bytes(profile: Profile, num_workers: int) -> int:
    """Arena and scratch of a profile; the same as `Engine.context_bytes`."""
    per_worker = max((s.scratch_bytes_per_worker for s in profile.steps), default=0)
    scratch = round_up(per_worker, ALIGNMENT_BYTES) * num_workers
    return round_up(profile.arena_bytes, ALIGNMENT_BYTES) + scratch


def io_offsets(plan: Plan, profile: Profile) -> list[int]:
    """Offset of each binding in a stream's memory for bindings."""
    offsets, at = [], 0
    for binding, shape in zip(plan.bindings, profile.shapes, strict=True):
        offsets.append(at)
        size = storage_bytes(shape, binding.dtype, binding.format)
        at += round_up(max(1, size), REGION_ALIGNMENT_BYTES)
    return offsets


def io_bytes(plan: Plan, profile: Profile) -> int:
    """All bindings of a profile."""
    *_, last = io_offsets(plan, profile)
    binding, shape = plan.bindings[-1], profile.shapes[-1]
    size = storage_bytes(shape, binding.dtype, binding.format)
    return last + round_up(max(1, size), REGION_ALIGNMENT_BYTES)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan in the report."""

    name: str
    device: str
    stream: str
    needs: MemoryNeeds
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class DeviceTotals:
    """What all plans of one device take, and what there is.

    Attributes:
        needed: weights, and per stream the largest arena and the largest bindings.
        reload: more for a moment, while the largest plan is loaded beside itself.
        available: free now, or the configured budget; None where the device does not tell.
    """

    device: str
    needed: int
    reload: int
    available: int | None

    @property
    def fits(self) -> bool:
        """Whether everything fits, reload included."""
        return self.available is None or self.needed + self.reload <= self.available


def totals(rows: Sequence[PlanRow], available: dict[str, int | None]) -> list[DeviceTotals]:
    """One row per device, over the plans that were not refused."""
    result = []
    for device in sorted({row.device for row in rows}):
        own = [row.needs for row in rows if row.device == device and not row.refusal]
        streams = {row.stream for row in rows if row.device == device and not row.refusal}
        needed = sum(needs.weights for needs in own)
        for stream in streams:
            shared = [r.needs for r in rows if (r.device, r.stream) == (device, stream)]
            needed += max(n.arena for n in shared) + max(n.io for n in shared)
        reload_bytes = max((n.weights + n.arena for n in own), default=0)
        result.append(DeviceTotals(device, needed, reload_bytes, available.get(device)))
    return result


def available_bytes(device: Any, budget_bytes: int) -> int | None:
    """Memory that plans may take on a device: the budget, or what is free now."""
    if budget_bytes:
        return budget_bytes
    if device.kind == "cuda":
        free, _ = device.free_memory()
        return int(free)
    return _available_host_bytes()


def _available_host_bytes() -> int | None:
    values = [_cgroup_left(), _meminfo("MemAvailable")]
    known = [value for value in values if value is not None]
    return min(known, default=None)


def _meminfo(name: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _cgroup_left() -> int | None:
    """What the process's control group (version 2) may still take; None without a limit."""
    try:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            own = next((line[3:].strip() for line in file if line.startswith("0::")), None)
        if own is None:
            return None
        folder = os.path.join("/sys/fs/cgroup", own.lstrip("/"))
        with open(os.path.join(folder, "memory.max"), encoding="ascii") as file:
            limit = file.read().strip()
        with open(os.path.join(folder, "memory.current"), encoding="ascii") as file:
            current = int(file.read())
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - current)
