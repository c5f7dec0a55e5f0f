"""Sliding windows over the spatial dimensions: padding and tap slices for float64 references."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Index = tuple[Any, ...]


def pad_or_crop(x: Array, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Array:
    """Extend each dimension by begins and ends elements of `value`; negative counts crop."""
    crop = tuple(
        slice(max(0, -b), max(max(0, -b), n - max(0, -e)))
        for n, b, e in zip(x.shape, begins, ends, strict=True)
    )
    widths = [(max(0, b), max(0, e)) for b, e in zip(begins, ends, strict=True)]
    return np.pad(x[crop], widths, constant_values=value)


def taps(
    window: Sequence[int], dilations: Sequence[int], strides: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[Index, Index]]:
    """For each tap its index into weights [K,C,*window] and into x [N,C,*S], for all outputs."""
    for tap in itertools.product(*(range(f) for f in window)):
        where = (
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, s, o in zip(tap, dilations, strides, out, strict=True)
        )
        yield (..., *tap), (..., *where)


def dilated(window: int, dilation: int) -> int:
    """Extent that a dilated window covers."""
    return dilation * (window - 1) + 1
