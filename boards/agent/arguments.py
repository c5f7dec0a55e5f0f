"""Arguments of requests, checked: they come from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from boards.conditions import available_memory_bytes

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?|")
_MEMORY_SHARE = 0.8  # of what is available, for one child
_LEAST_MEMORY_BYTES = 64 << 20


def device_name(value: Any) -> str:
    """`cpu`, `cuda`, `cuda:N`, or empty for whatever the task is for. Raises ValueError."""
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise ValueError(f"device {value!r}; known are cpu, cuda, cuda:N")
    return value


def release_id_of(value: Any) -> str:
    """Id of a release. Raises ValueError."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{16}", value):
        raise ValueError(f"release {value!r} is no id of 16 hexadecimal digits")
    return value


def whole(value: Any, low: int, high: int) -> int:
    """A whole number within limits. Raises ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value


def seconds(value: Any, low: float, high: float) -> float:
    """A time within limits. Raises ValueError."""
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a time from {low:g} to {high:g} s")
    return float(value)


def texts(value: Any) -> Sequence[str]:
    """A list of texts. Raises ValueError."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return value


def memory_limit(wanted: Any) -> int:
    """Bytes that a child may take: no more than most of what is there."""
    available = available_memory_bytes() or (1 << 40)
    limit = max(_LEAST_MEMORY_BYTES, int(available * _MEMORY_SHARE))
    return limit if wanted is None else min(limit, whole(wanted, _LEAST_MEMORY_BYTES, 1 << 44))
