"""Histograms: independent of order, batching and merging."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder_host.calibration.histogram import NUM_BINS, Histogram
from builder_host.errors import BuilderError

VALUES = st.lists(
    st.one_of(
        st.just(0.0),
        st.floats(-(2.0**30), 2.0**30, width=32),
        st.floats(-1, 1, width=32),
        st.sampled_from([1.0, 2.0, -4.0, 0.5]),  # ends of ranges
    ),
    min_size=1,
    max_size=60,
)


def of(*parts: list[float]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        if part:
            histogram.add(np.array(part, np.float32))
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    exponent = histogram.exponent if histogram.largest else None
    return (
        histogram.counts.tolist(), exponent, histogram.largest,
        histogram.num_zeros, histogram.has_negative,
    )  # fmt: skip


@settings(deadline=None)
@given(values=VALUES, cuts=st.lists(st.integers(0, 60), max_size=4), seed=st.integers(0, 99))
def test_order_and_batching_do_not_matter(values, cuts, seed):
    shuffled = list(np.random.default_rng(seed).permutation(np.array(values)))
    edges = [0, *sorted(cuts), len(values)]
    parts = [shuffled[a:b] for a, b in pairwise(edges)]
    assert state(of(*parts)) == state(of(values))


@settings(deadline=None)
@given(first=VALUES, second=VALUES)
def test_merging_equals_counting_together(first, second):
    merged = of(first)
    merged.merge(of(second))
    assert state(merged) == state(of(first, second))


def test_counts_follow_the_grid():
    histogram = of([0.0, -1.5, 0.25, 3.999, 2.0])
    assert histogram.exponent == 2
    assert histogram.num_zeros == 1
    assert histogram.has_negative
    bins = np.flatnonzero(histogram.counts)
    assert bins.tolist() == [0.25 / 4 * NUM_BINS, 1.5 / 4 * NUM_BINS, 2048, NUM_BINS - 2]
    assert histogram.num_values == 5
    assert histogram.num_used == NUM_BINS - 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(BuilderError, match="1 of 3 values are NaN or infinite"):
        of([1.0, bad, 2.0])
