"""Histograms -> dynamic range: the largest magnitude that 8 bits shall represent.

Sources: S. Migacz, "8-bit inference with TensorRT", GTC 2017 (entropy); the legacy calibrator's
parameters are those of TensorRT's IInt8LegacyCalibrator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.calibration.histogram import Histogram
from builder_host.errors import BuilderError

Array = npt.NDArray[Any]

_LEVELS = 128  # magnitudes that a signed 8-bit number has
_CANDIDATES = 1024  # thresholds tried, at most
_FIRST_BIN = 2 * _LEVELS  # no threshold below this many bins
_MSE_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Options:
    """Parameters of the calibrators.

    Attributes:
        percentile: share of magnitudes, in percent, that the range covers (`percentile`).
        quantile: the same as a fraction, for `legacy`.
        regression_cutoff: `legacy`: fraction of the largest magnitude up to which an exponential
            tail is fitted; the range ends where it falls below one value. 1: take the quantile.
    """

    percentile: float = 99.99
    quantile: float = 0.9999
    regression_cutoff: float = 1.0

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0.0 < self.percentile <= 100.0:
            raise BuilderError(f"percentile is {self.percentile}; expected above 0, at most 100")
        for name in ("quantile", "regression_cutoff"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise BuilderError(f"{name} is {value}; expected above 0, at most 1")


def min_max(histogram: Histogram, options: Options) -> float:
    """The largest magnitude."""
    del options
    return histogram.largest


def percentile(histogram: Histogram, options: Options) -> float:
    """The magnitude that a share of all values, zeros included, does not exceed."""
    return _quantile(histogram, options.percentile / 100.0)


def legacy(histogram: Histogram, options: Options) -> float:
    """Quantile, or an exponential tail fitted below the cutoff and extended to one value."""
    if options.regression_cutoff >= 1.0:
        return _quantile(histogram, options.quantile)
    bins = np.flatnonzero(histogram.counts)
    bins = bins[(bins + 1) * histogram.bin_width <= options.regression_cutoff * histogram.largest]
    if bins.size < 2:
        return histogram.largest
    centres = (bins + 0.5) * histogram.bin_width
    slope, level = np.polyfit(centres, np.log(histogram.counts[bins]), 1)
    if slope >= 0.0:
        return histogram.largest
    return float(np.clip(-level / slope, histogram.bin_width, histogram.largest))


def mean_squared_error(histogram: Histogram, options: Options) -> float:
    """The range with the least squared error of clipping and rounding together."""
    del options
    used = histogram.num_used
    counts = histogram.counts[:used].astype(np.float64)
    centres = (np.arange(used) + 0.5) * histogram.bin_width
    best, least = histogram.largest, np.inf
    for candidate in np.linspace(0.1, 1.0, _MSE_CANDIDATES) * histogram.largest:
        step = candidate / (_LEVELS - 1)
        error = centres - np.minimum(np.rint(centres / step), _LEVELS - 1) * step
        loss = float(counts @ (error * error))
        if loss < least:
            best, least = float(candidate), loss
    return best


def entropy(histogram: Histogram, options: Options) -> float:
    """The range whose 128 levels lose the least information (Kullback-Leibler divergence).

    For each candidate the clipped distribution, its tail moved into the last bin, is compared with
    the one that 128 levels can tell apart. Exact zeros carry no information about the range, they
    are representable whatever it is, and stay out.
    """
    del options
    used = histogram.num_used
    if used <= _FIRST_BIN:
        return histogram.largest
    counts = histogram.counts[:used].astype(np.float64)
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    stride = max(1, -(-(used - _FIRST_BIN) // _CANDIDATES))
    best, least = used, np.inf
    for end in (*range(_FIRST_BIN, used, stride), used):
        loss = _divergence(counts[:end], mass, filled, end)
        if loss < least:
            best, least = end, loss
    if best == used:
        return histogram.largest
    return float((best + 0.5) * histogram.bin_width)


def _divergence(counts: Array, mass: Array, filled: Array, end: int) -> float:
    """KL divergence of the first `end` bins, the tail in the last, from their 128 levels."""
    clipped = counts.copy()
    clipped[-1] += mass[-1] - mass[end]
    edges = np.arange(_LEVELS + 1) * end // _LEVELS
    sums = mass[edges[1:]] - mass[edges[:-1]]
    bins = filled[edges[1:]] - filled[edges[:-1]]
    share = np.divide(sums, bins, out=np.zeros(_LEVELS), where=bins > 0)
    spread = np.repeat(share, np.diff(edges))
    inside = mass[end]
    if inside == 0.0:
        return float("inf")
    p, q = clipped / mass[-1], np.where(counts > 0, spread, 0.0) / inside
    known = (p > 0) & (q > 0)
    loss = float(np.sum(p[known] * np.log(p[known] / q[known])))
    missing = float(p[(p > 0) & (q == 0)].sum())  # a tail that falls into an empty last bin
    return loss + missing * 40.0  # -log of the smallest share that 2**58 values can have


def _quantile(histogram: Histogram, share: float) -> float:
    total = histogram.num_values
    reached = histogram.num_zeros + np.cumsum(histogram.counts)
    where = int(np.searchsorted(reached, share * total))
    upper = (min(where, len(reached) - 1) + 1) * histogram.bin_width
    return float(min(upper, histogram.largest))


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A rule for ranges.

    Attributes:
        name: as the command line takes it.
        title: in the first line of a cache file.
        threshold: histogram and options -> range.
        is_after_fusion: tensors of the fused network are observed; otherwise every tensor of the
            network as imported, so that the table serves whatever is fused later.
    """

    name: str
    title: str
    threshold: Callable[[Histogram, Options], float]
    is_after_fusion: bool = True


CALIBRATORS: dict[str, Calibrator] = {
    one.name: one
    for one in (
        Calibrator("entropy", "EntropyCalibration2", entropy, is_after_fusion=False),
        Calibrator("entropy1", "EntropyCalibration", entropy),
        Calibrator("min-max", "MinMaxCalibration", min_max),
        Calibrator("percentile", "PercentileCalibration", percentile),
        Calibrator("mse", "MseCalibration", mean_squared_error),
        Calibrator("legacy", "LegacyCalibration", legacy),
    )
}


def find_calibrator(name: str) -> Calibrator:
    """A calibrator by name. Raises BuilderError that lists them."""
    found = CALIBRATORS.get(name)
    if found is None:
        raise BuilderError(f"no calibrator '{name}'; expected one of {', '.join(CALIBRATORS)}")
    return found
