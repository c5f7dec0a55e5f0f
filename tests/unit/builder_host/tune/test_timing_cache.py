"""Timing cache: round trip, merging, broken files."""

from __future__ import annotations

import itertools

import pytest

from builder_host.errors import TimingCacheError
from builder_host.tune.timing_cache import Timing, TimingCache, TimingKey, load_timing_cache


def key(problem="p", tactic="t"):
    return TimingKey("fp", problem, tactic, "template", "zig", "flush=0")


def test_round_trip_and_sorted_text(tmp_path):
    cache = TimingCache()
    cache.put(key("b"), Timing(2.5, 2.0, 3.0, 11))
    cache.put(key("a"), Timing(None, error="does not compile"))
    cache.save(tmp_path / "t.cache")
    loaded = load_timing_cache(tmp_path / "t.cache")
    assert list(loaded) == list(cache)
    assert [k.problem for k, _ in loaded] == ["a", "b"]
    other = TimingCache()
    other.put(key("a"), Timing(None, error="does not compile"))
    other.put(key("b"), Timing(2.5, 2.0, 3.0, 11))
    assert other.text() == cache.text()


def test_a_file_is_written_again_only_after_a_change(tmp_path):
    path, copy = tmp_path / "t.cache", tmp_path / "copy.cache"
    first = TimingCache()
    first.put(key("a"), Timing(2.5, 2.0, 3.0, 11))
    first.save(path)
    cache = load_timing_cache(path)
    written = path.stat().st_ino
    cache.save(path)
    assert path.stat().st_ino == written
    cache.save(copy)
    assert copy.read_bytes() == path.read_bytes()
    cache.put(key("b"), Timing(1.0, 1.0, 1.0, 5))
    cache.save(path)
    assert len(load_timing_cache(path)) == 2
    path.unlink()
    cache.save(path)
    assert len(load_timing_cache(path)) == 2


def test_merge_does_not_depend_on_order():
    timings = [Timing(None, error="x"), Timing(3.0, 3.0, 3.0, 5), Timing(2.0, 2.0, 2.0, 5)]
    timings.append(Timing(9.0, 9.0, 9.0, 7))
    results = set()
    for order in itertools.permutations(timings):
        total = TimingCache()
        for timing in order:
            part = TimingCache()
            part.put(key(), timing)
            total.merge(part)
        results.add(total.text())
    assert len(results) == 1
    assert total.get(key()) == Timing(9.0, 9.0, 9.0, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("{}\n", "line 1: the first line"),
        ("nonsense\n", "line 1"),
        ('{"format": "edgeplan-timing-cache", "version": 99}\n', "version 99"),
        ('{"format": "edgeplan-timing-cache", "version": 1}\n{"problem": 3}\n', "line 2"),
        ('{"format": "edgeplan-timing-cache", "version": 1}\n[]\n', "line 2"),
    ],
)
def test_broken_files_name_the_line(tmp_path, text, message):
    path = tmp_path / "t.cache"
    path.write_text(text)
    with pytest.raises(TimingCacheError, match=message):
        load_timing_cache(path)
