"""Histograms of magnitudes that do not depend on the order or the batching of the data.

The range is the smallest power of two above the largest magnitude, cut into equal bins. When it
grows, neighbouring bins are joined, which gives exactly what the wider histogram would have held
from the start.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError

NUM_BINS = 4096
_CHUNK_ELEMS = 1 << 20  # keeps temporaries in the cache


class Histogram:
    """Counts of |x| over [0, 2**exponent).

    Attributes:
        counts: int64 [NUM_BINS]; exact zeros are not among them.
        exponent: of the range; meaningless while `largest` is 0.
        largest: largest magnitude seen (float32).
        num_zeros: exact zeros.
        has_negative: whether any value was below 0.
    """

    def __init__(self) -> None:
        """An empty histogram."""
        self.counts = np.zeros(NUM_BINS, np.int64)
        self.exponent = -1024
        self.largest = 0.0
        self.num_zeros = 0
        self.has_negative = False

    @property
    def num_values(self) -> int:
        """All values seen."""
        return int(self.counts.sum()) + self.num_zeros

    @property
    def bin_width(self) -> float:
        """Width of one bin."""
        return math.ldexp(1.0, self.exponent) / NUM_BINS

    @property
    def num_used(self) -> int:
        """Bins up to the one that holds the largest magnitude."""
        return int(np.flatnonzero(self.counts)[-1]) + 1 if self.counts.any() else 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count values of any shape.

        Raises:
            BuilderError: NaN or infinite values.
        """
        flat = np.asarray(values, dtype=np.float32).reshape(-1)
        for start in range(0, flat.size, _CHUNK_ELEMS):
            self._add_chunk(flat[start : start + _CHUNK_ELEMS])

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        if other.largest > 0.0:
            self._grow(other.exponent)
            self.counts += _joined(other.counts, self.exponent - other.exponent)
        self.largest = max(self.largest, other.largest)
        self.num_zeros += other.num_zeros
        self.has_negative |= other.has_negative

    def _add_chunk(self, values: npt.NDArray[np.float32]) -> None:
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            count = int(values.size - np.isfinite(values).sum())
            raise BuilderError(f"{count} of {values.size} values are NaN or infinite")
        largest = max(-low, high)
        self.has_negative |= low < 0.0
        if largest == 0.0:
            self.num_zeros += values.size
            return
        self._grow(math.frexp(largest)[1])
        self.largest = max(self.largest, largest)
        # a power of two: the product is exact, so that a value's bin depends on the value alone
        scale = np.float32(math.ldexp(NUM_BINS, -self.exponent))
        bins = np.abs(values * scale).astype(np.int32)
        self.counts += np.bincount(bins, minlength=NUM_BINS)
        zeros = values.size - int(np.count_nonzero(values))
        self.counts[0] -= zeros
        self.num_zeros += zeros

    def _grow(self, exponent: int) -> None:
        if self.largest == 0.0:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = _joined(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _joined(counts: npt.NDArray[np.int64], doublings: int) -> npt.NDArray[np.int64]:
    """Counts over a range that is 2**doublings times as wide."""
    if doublings < 0:
        raise ValueError("the range of a histogram never shrinks")
    factor = min(1 << min(doublings, 30), NUM_BINS)
    result = np.zeros_like(counts)
    result[: NUM_BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return result
