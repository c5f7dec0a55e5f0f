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

_SIGNED_LEVELS, _UNSIGNED_LEVELS = 128, 256  # magnitudes that 8 bits have
_CANDIDATES = 1024  # thresholds tried, at most
_FIRST_BINS = 2  # no threshold below so many bins per level
_MSE_CANDIDATES = 256
_WIDER_CANDIDATES = 64
_ONE_BIT = 4.0  # squared error with a bit less
_LOG_OF_NOTHING = 40.0  # -log of the smallest share that 2**58 values can have


@dataclass(frozen=True, slots=True)
class Options:
    """Parameters of the calibrators.

    Attributes:
        percentile: share of magnitudes, in percent, that the range covers (`percentile`).
        quantile: the same as a fraction, for `legacy`.
        regression_cutoff: `legacy`: fraction of the largest magnitude up to which an exponential
            tail is fitted; the range ends where it falls below one value. 1: take the quantile.
        is_signed: 128 levels for every tensor, as TensorRT has them; otherwise 256 for tensors that
            are never negative, which CPU plans store as UINT8. Fewer levels clip more.
    """

    percentile: float = 99.99
    quantile: float = 0.9999
    regression_cutoff: float = 1.0
    is_signed: bool = False

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
    candidates = np.linspace(0.1, 1.0, _MSE_CANDIDATES) * histogram.largest
    losses = _squared_errors(histogram, candidates, _levels(histogram, options))
    return float(candidates[np.argmin(losses)])


def entropy(histogram: Histogram, options: Options) -> float:
    """The range whose levels lose the least information (Kullback-Leibler divergence).

    For each candidate the clipped distribution, its tail moved into the last bin, is compared with
    the one that the levels can tell apart. Exact zeros carry no information about the range, they
    are representable whatever it is, and stay out.

    Divergence does not see how far a value is clipped. Where the tail is long and matters, as in
    networks of depthwise layers, it can lose more than a whole bit, by the squared error, against
    no clipping at all; the range then grows until it does not.
    """
    levels = _levels(histogram, options)
    narrow = least_divergence(histogram, levels)
    candidates = np.linspace(narrow, histogram.largest, _WIDER_CANDIDATES)
    losses = _squared_errors(histogram, candidates, levels)
    return float(candidates[np.argmax(losses <= _ONE_BIT * losses[-1])])


def least_divergence(histogram: Histogram, levels: int) -> float:
    """The range of the least divergence, see `entropy`."""
    used, first = histogram.num_used, _FIRST_BINS * levels
    if used <= first:
        return histogram.largest
    stride = max(1, -(-(used - first) // _CANDIDATES))
    ends = np.array([*range(first, used, stride), used])
    losses = _divergences(histogram.counts[:used].astype(np.float64), ends, levels)
    best = int(ends[np.argmin(losses)])
    if best == used:
        return histogram.largest
    return float((best + 0.5) * histogram.bin_width)


def _levels(histogram: Histogram, options: Options) -> int:
    is_signed = options.is_signed or histogram.has_negative
    return _SIGNED_LEVELS if is_signed else _UNSIGNED_LEVELS


def _squared_errors(histogram: Histogram, ranges: Array, levels: int) -> Array:
    """Sum of squared errors of clipping and rounding, per range."""
    used = histogram.num_used
    counts = histogram.counts[:used].astype(np.float64)
    centres = (np.arange(used) + 0.5) * histogram.bin_width
    losses = np.empty(len(ranges))
    for number, largest in enumerate(ranges):
        step = max(largest / (levels - 1), np.finfo(np.float64).tiny)
        error = centres - np.minimum(np.rint(centres / step), levels - 1) * step
        losses[number] = counts @ (error * error)
    return losses


def _divergences(counts: Array, ends: Array, levels: int) -> Array:
    """KL divergence of what `levels` tell from the first bins, with the tail in their last.

    Within a level all filled bins get the same share, so that sums over bins become sums over
    levels of differences of running sums: of counts, of filled bins, and of n log n.

    Args:
        counts: float64, of all used bins; the last one is not 0.
        ends: numbers of bins, each at least `levels`.
        levels: that 8 bits have.

    Returns:
        One divergence per end; infinite where the first bins are empty.
    """
    is_filled = counts > 0
    mass, filled, entropy_sums = (
        np.concatenate([[0.0], np.cumsum(v)]) for v in (counts, is_filled, _n_log_n(counts))
    )
    total, inside = mass[-1], mass[ends]
    edges = np.arange(levels + 1) * ends[:, None] // levels
    sums, bins = np.diff(mass[edges], axis=1), np.diff(filled[edges], axis=1)
    # log of the share that each filled bin of a level gets; empty levels count nothing
    shares = np.log(np.divide(sums, bins, out=np.ones_like(sums), where=sums > 0))
    last, has_last, tail = counts[ends - 1], is_filled[ends - 1], total - inside
    known = inside + np.where(has_last, tail, 0.0)
    own = entropy_sums[ends] + np.where(has_last, _n_log_n(last + tail) - _n_log_n(last), 0.0)
    told = (sums * shares).sum(axis=1) + np.where(has_last, tail, 0.0) * shares[:, -1]
    missing = np.where(has_last, 0.0, tail)  # it falls into an empty last bin
    with np.errstate(divide="ignore", invalid="ignore"):
        losses = (own - told + known * np.log(inside / total) + missing * _LOG_OF_NOTHING) / total
    return np.where(inside > 0, losses, np.inf)


def _n_log_n(counts: Array) -> Array:
    return counts * np.log(np.where(counts > 0, counts, 1.0))


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
