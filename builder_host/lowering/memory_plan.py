"""Lifetimes -> offsets: where each buffer lies in the activation arena.

Greedy by size, the largest first, into the lowest gap that fits: equal to the lower bound on
ordinary networks (Pisarchyk and Lee 2020 call it greedy-by-size). Random restarts look for less
when the first answer is above the bound.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

ALIGN_BYTES = 256
_RESTARTS = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One buffer: first and last step that touch it, both inclusive."""

    name: str
    first_step: int
    last_step: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Offsets in bytes by name, the size of the arena and its lower bound."""

    offsets: dict[str, int]
    arena_bytes: int
    lower_bound_bytes: int


def plan_memory(lifetimes: Sequence[Lifetime], align_bytes: int = ALIGN_BYTES) -> ArenaPlan:
    """Place buffers in one arena so that those alive together never overlap.

    Args:
        lifetimes: any order; the answer does not depend on it.
        align_bytes: power of two; every offset is a multiple of it.

    Returns:
        Offsets and sizes; the lower bound is the largest sum of aligned sizes alive at one step.

    Raises:
        ValueError: align_bytes is no power of two, two lifetimes share a name, or one ends before
            it starts.
    """
    if align_bytes <= 0 or align_bytes & (align_bytes - 1):
        raise ValueError(f"align_bytes is {align_bytes}, it must be a power of two")
    names = {lifetime.name for lifetime in lifetimes}
    if len(names) != len(lifetimes):
        raise ValueError("two lifetimes share a name")
    for lifetime in lifetimes:
        if lifetime.last_step < lifetime.first_step or lifetime.size_bytes < 0:
            raise ValueError(f"lifetime {lifetime} ends before it starts or has a negative size")
    ordered = sorted(lifetimes, key=lambda x: (-x.size_bytes, x.first_step, x.last_step, x.name))
    bound = _lower_bound(ordered, align_bytes)
    best = _place(ordered, align_bytes)
    shuffler = random.Random(0)  # noqa: S311 - a search order, not a secret
    trial = list(ordered)
    for _ in range(_RESTARTS):
        if best[1] <= bound or len(trial) < 2:
            break
        a, b = shuffler.sample(range(len(trial)), 2)
        trial[a], trial[b] = trial[b], trial[a]
        placed = _place(trial, align_bytes)
        if placed[1] < best[1]:
            best = placed
        else:
            trial[a], trial[b] = trial[b], trial[a]
    return ArenaPlan(best[0], best[1], bound)


def _aligned(size_bytes: int, align_bytes: int) -> int:
    return -(-size_bytes // align_bytes) * align_bytes


def _lower_bound(lifetimes: Sequence[Lifetime], align_bytes: int) -> int:
    changes: dict[int, int] = {}
    for lifetime in lifetimes:
        size = _aligned(lifetime.size_bytes, align_bytes)
        changes[lifetime.first_step] = changes.get(lifetime.first_step, 0) + size
        changes[lifetime.last_step + 1] = changes.get(lifetime.last_step + 1, 0) - size
    alive = bound = 0
    for step in sorted(changes):
        alive += changes[step]
        bound = max(bound, alive)
    return bound


def _place(order: Sequence[Lifetime], align_bytes: int) -> tuple[dict[str, int], int]:
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    arena_bytes = 0
    for lifetime in order:
        size = _aligned(lifetime.size_bytes, align_bytes)
        offset = 0
        for start, end, other in sorted(placed, key=lambda x: x[:2]):
            if other.last_step < lifetime.first_step or lifetime.last_step < other.first_step:
                continue
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[lifetime.name] = offset
        placed.append((offset, offset + size, lifetime))
        arena_bytes = max(arena_bytes, offset + size)
    return offsets, arena_bytes
