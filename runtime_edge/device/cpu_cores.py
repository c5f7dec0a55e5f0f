"""Which cores a process may use, and in which order workers should take them."""

from __future__ import annotations

import os
import threading
from functools import lru_cache

_SYSFS = "/sys/devices/system/cpu"
_lock = threading.Lock()
_taken = 0


def usable_cores() -> tuple[int, ...]:
    """Cores that the process may run on: fast cores first, one thread of each core before others.

    Follows the affinity mask of the calling thread as it is now.
    """
    return _ordered(tuple(sorted(os.sched_getaffinity(0))))


def cores_for_pool(num_workers: int) -> tuple[int, ...]:
    """Usable cores for a new pool, rotated so that pools start on different cores."""
    global _taken
    cores = usable_cores()
    with _lock:
        start = _taken % len(cores)
        _taken += num_workers
    return cores[start:] + cores[:start]


@lru_cache(maxsize=8)
def _ordered(cores: tuple[int, ...]) -> tuple[int, ...]:
    seen: set[str] = set()
    keys = []
    for core in cores:
        siblings = read_text(f"{_SYSFS}/cpu{core}/topology/thread_siblings_list") or str(core)
        is_second_thread = siblings in seen
        seen.add(siblings)
        capacity = read_text(f"{_SYSFS}/cpu{core}/cpu_capacity")
        rank = -int(capacity) if capacity and capacity.isdigit() else 0
        keys.append((is_second_thread, rank, core))
    return tuple(core for _, _, core in sorted(keys))


def read_text(path: str) -> str | None:
    """Stripped content of a small system file, None when there is none or it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip("\0\n\t ")
    except OSError:
        return None
