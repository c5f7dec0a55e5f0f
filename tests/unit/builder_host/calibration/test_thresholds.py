"""Calibrators on distributions whose best range is known."""

from __future__ import annotations

import numpy as np
import pytest

from builder_host.calibration.histogram import Histogram
from builder_host.calibration.thresholds import (
    CALIBRATORS,
    Options,
    find_calibrator,
    least_divergence,
)
from builder_host.errors import BuilderError


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


def ranges(values: np.ndarray, options: Options | None = None) -> dict[str, float]:
    histogram = histogram_of(values)
    return {n: c.threshold(histogram, options or Options()) for n, c in CALIBRATORS.items()}


NORMAL = np.random.default_rng(0).standard_normal(200_000)


def error_of(values: np.ndarray, largest: float) -> float:
    step = largest / 127
    return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))


def test_outliers_move_min_max_only():
    with_outlier = np.concatenate([NORMAL, [60.0]])
    found = ranges(with_outlier)
    assert found["min-max"] == 60.0
    for name in ("entropy", "entropy1", "percentile", "legacy"):
        assert 2.5 < found[name] < 8.0, name
    assert 2.5 < found["mse"] < 40.0  # clipping one value by 20 costs as much as coarser steps


def test_uniform_values_keep_their_whole_range():
    found = ranges(np.random.default_rng(0).uniform(-3, 3, 200_000))
    for name, largest in found.items():
        assert 0.97 * 3 < largest <= 3.0, name


def test_mean_squared_error_is_near_the_best_of_a_fine_search():
    heavy = np.random.default_rng(1).laplace(size=100_000)
    found = ranges(heavy)["mse"]
    best = min(error_of(heavy, largest) for largest in np.linspace(2, 14, 400))
    assert error_of(heavy, found) <= 1.02 * best


def test_entropy_beats_min_max_for_heavy_tails():
    heavy = np.random.default_rng(1).standard_t(3, size=200_000)
    found = ranges(heavy)
    assert found["entropy"] < 0.5 * found["min-max"]
    typical = heavy[np.abs(heavy) < np.quantile(np.abs(heavy), 0.999)]
    assert error_of(typical, found["entropy"]) < 0.25 * error_of(typical, found["min-max"])


def test_tensors_that_are_never_negative_have_twice_the_levels():
    tail = np.abs(np.random.default_rng(1).standard_t(3, size=200_000))
    histogram = histogram_of(tail)
    for name in ("entropy", "mse"):
        fine = CALIBRATORS[name].threshold(histogram, Options())
        coarse = CALIBRATORS[name].threshold(histogram, Options(is_signed=True))
        assert coarse < fine, name  # finer steps leave more room for the tail
    both_signs = histogram_of(np.concatenate([tail, [-1e-6]]))
    assert CALIBRATORS["mse"].threshold(both_signs, Options()) == pytest.approx(
        CALIBRATORS["mse"].threshold(histogram, Options(is_signed=True))
    )


def test_entropy_never_loses_more_than_a_bit_by_clipping():
    """A long, flat tail: divergence gives it up, though it holds most of the energy."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.laplace(scale=0.02, size=200_000), rng.uniform(-4, 4, 2000)])
    histogram = histogram_of(values)
    narrow = least_divergence(histogram, 128)
    assert error_of(values, narrow) > 10 * error_of(values, histogram.largest)
    found = ranges(values)["entropy"]
    assert narrow < found < histogram.largest
    # bins of 4/4096, which the candidates are judged by, are far narrower than steps of 4/127
    assert error_of(values, found) <= 1.01 * 4 * error_of(values, histogram.largest)


def test_zeros_do_not_change_entropy():
    relu = np.maximum(NORMAL, 0.0)
    dense = relu[relu > 0]
    assert ranges(relu)["entropy"] == ranges(dense)["entropy"]


def test_percentile_is_that_of_numpy_within_a_bin():
    histogram = histogram_of(NORMAL)
    found = CALIBRATORS["percentile"].threshold(histogram, Options(percentile=99.0))
    assert found == pytest.approx(np.percentile(np.abs(NORMAL), 99.0), abs=2 * histogram.bin_width)


def test_legacy_fits_the_tail_below_the_cutoff():
    values = np.concatenate([np.random.default_rng(2).exponential(size=100_000), [100.0]])
    found = ranges(values, Options(regression_cutoff=0.1))["legacy"]
    # with bins of 128/4096 the fitted count falls to one at ln(100,000 / 32) = 8.05 and a bin's log
    assert 6.0 < found < 12.0


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
def test_few_and_constant_values(name):
    for values in ([2.5], [0.0, 0.0], [1.0, 1.0, 0.0]):
        largest = CALIBRATORS[name].threshold(histogram_of(np.array(values)), Options())
        assert 0.0 <= largest <= max(values)
        assert (largest > 0.0) == (max(values) > 0.0)


def test_unknown_names_and_bad_shares():
    with pytest.raises(BuilderError, match="'kl'; expected one of entropy, entropy1"):
        find_calibrator("kl")
    for options in ({"percentile": 0.0}, {"quantile": 1.5}, {"regression_cutoff": -1.0}):
        with pytest.raises(BuilderError, match="expected above 0"):
            Options(**options)


@pytest.mark.parametrize("seed", range(6))
def test_entropy_picks_what_the_formula_bin_by_bin_picks(seed):
    """Sparse and dense histograms, some empty below, against sums over single bins."""
    rng = np.random.default_rng(seed)
    histogram = Histogram()
    histogram.add(rng.uniform(0, 1, 8).astype(np.float32))  # its range: below 1
    rate = rng.uniform(0.02, 3) * np.exp(-np.arange(4096) / rng.uniform(200, 3000))
    histogram.counts[:] = rng.poisson(rate)
    histogram.counts[700:] = 0
    if seed % 3 == 0:
        histogram.counts[:600] = 0
    histogram.largest = (histogram.num_used - 0.5) * histogram.bin_width
    ends = [*range(512, histogram.num_used), histogram.num_used]
    counts = histogram.counts[: histogram.num_used].astype(np.float64)

    def divergence(end):
        clipped = counts[:end].copy()
        clipped[-1] += counts[end:].sum()
        told = np.zeros(end)
        for level in range(256):
            part = slice(level * end // 256, (level + 1) * end // 256)
            filled = counts[:end][part] > 0
            told[part] = filled * counts[:end][part].sum() / max(1, filled.sum())
        if told.sum() == 0:
            return np.inf
        p, q = clipped / counts.sum(), told / told.sum()
        both = (p > 0) & (q > 0)
        return np.sum(p[both] * np.log(p[both] / q[both])) + 40 * p[(p > 0) & (q == 0)].sum()

    losses = [divergence(end) for end in ends]
    found = least_divergence(histogram, 256)
    end = round(found / histogram.bin_width - 0.5)
    at = ends.index(histogram.num_used if found == histogram.largest else end)
    assert losses[at] <= min(losses) + 1e-9
