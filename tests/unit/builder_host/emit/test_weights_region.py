"""The weights region: equal constants once, others apart, all where they are said to be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from builder_host.emit.weights_region import WeightsRegion


@pytest.mark.parametrize("size", [1, 100, 70_000, 3_000_000])
def test_equal_bytes_are_stored_once(size):
    region = WeightsRegion()
    first = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    changed = first.copy()
    changed[-1] ^= 1  # where no sample of a large piece looks
    arrays = [first, changed, first.copy(), np.append(first, first[:1]), changed.copy()]
    keys = [region.add(array) for array in arrays]
    assert keys[0] == keys[2]
    assert keys[1] == keys[4]
    assert len(set(keys)) == 3
    data, lengths, offsets = region.finish()
    assert sum(lengths) == data.nbytes
    for array, key in zip(arrays, keys, strict=True):
        np.testing.assert_array_equal(data[offsets[key] : offsets[key] + array.nbytes], array)


def test_bytes_count_and_not_types():
    region = WeightsRegion()
    words = np.arange(40, dtype=np.uint32)
    assert region.add(words) == region.add(words.view(np.uint8).reshape(4, 40))
    assert region.add(np.zeros(0, np.float32)) == region.add(np.zeros(0, np.int8))


def test_owners_keep_equal_bytes_apart():
    region = WeightsRegion()
    values = np.ones(1000, np.float32)
    keys = [region.add(values, owner) for owner in ("a", "b", "a", "")]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3
    _, _, offsets = region.finish()
    places = sorted(offsets[key] for key in set(keys))
    assert all(after - before >= values.nbytes for before, after in itertools.pairwise(places))
