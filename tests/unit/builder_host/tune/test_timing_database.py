"""Commands on timing databases: merge, import, export, stats."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from builder_host.tune.statistics import database_groups
from builder_host.tune.timing_cache import (
    Timing,
    TimingCache,
    TimingKey,
    digest,
    load_timing_cache,
)
from planformat.fingerprint import fingerprint_to_json
from runtime_edge.cli import main
from runtime_edge.probe import probe_device

KEY = TimingKey("device1", "conv|1", "conv_direct(a=1)", "template", "zig", "flush=0")
GOOD = Timing(10.0, 9.0, 11.0, 5, observed="cpu_mhz=2100 load=0.1")
FAILED = Timing(None, error="it was ended by SIGSEGV")


def saved(path, **records):
    """A database whose keys differ in their problem."""
    TimingCache({replace(KEY, problem=name): timing for name, timing in records.items()}).save(path)
    return str(path)


def test_merging_does_not_depend_on_the_order(tmp_path):
    files = [
        saved(tmp_path / "a", p1=GOOD, p2=FAILED),
        saved(tmp_path / "b", p1=replace(GOOD, num_repeats=9, median_us=12.0), p3=GOOD),
        saved(tmp_path / "c", p1=FAILED, p2=GOOD),
    ]
    texts = set()
    for order in itertools.permutations(files):
        assert main(["tune", "merge", *order, "-o", str(tmp_path / "out")]) == 0
        texts.add((tmp_path / "out").read_text())
    assert len(texts) == 1
    merged = load_timing_cache(tmp_path / "out")
    assert merged.get(replace(KEY, problem="p1")).num_repeats == 9
    assert merged.get(replace(KEY, problem="p2")) == GOOD
    assert len(merged) == 3


def test_import_makes_and_extends_a_database(tmp_path, capsys):
    database = str(tmp_path / "db")
    assert main(["tune", "import", database, saved(tmp_path / "a", p1=GOOD), "--json"]) == 0
    better = saved(tmp_path / "b", p1=replace(GOOD, num_repeats=50), p2=FAILED)
    assert main(["tune", "import", database, better, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["records"], row["new"], row["replaced"]) for row in rows] == [(1, 1, 0), (2, 1, 1)]


def test_export_by_device_family_and_success(tmp_path, capsys):
    here = digest(fingerprint_to_json(probe_device()))
    records = {
        KEY: GOOD,
        replace(KEY, fingerprint=here): GOOD,
        replace(KEY, fingerprint=here, tactic="gemm(b=2)"): FAILED,
    }
    TimingCache(records).save(tmp_path / "db")
    (tmp_path / "here.json").write_text(fingerprint_to_json(probe_device()))
    out = tmp_path / "out"
    for options, count in (
        (["--device", "device1"], 1),
        (["--target", str(tmp_path / "here.json")], 2),
        (["--target", str(tmp_path / "here.json"), "--no-failures"], 1),
        (["--family", "gemm"], 1),
    ):
        assert main(["tune", "export", str(tmp_path / "db"), "-o", str(out), *options]) == 0
        assert len(load_timing_cache(out)) == count, options
    assert main(["tune", "export", str(tmp_path / "db"), "-o", str(out), "--family", "x"]) == 1
    assert "none of 3 records fits" in capsys.readouterr().err


def test_stats_count_by_device(tmp_path, capsys):
    cache = TimingCache(
        {
            KEY: GOOD,
            replace(KEY, tactic="gemm(b=2)"): FAILED,
            replace(KEY, fingerprint="device2", problem="plan:1", tactic="plan"): GOOD,
        }
    )
    first, second = database_groups(cache)
    assert (first.num_records, first.num_failed, first.num_problems) == (2, 1, 1)
    assert first.families == {"conv_direct": 1, "gemm": 1}
    assert first.dispersion == pytest.approx(0.2)
    assert first.observed == 1
    assert (second.fingerprint, second.num_plans) == ("device2", 1)
    cache.save(tmp_path / "db")
    assert main(["tune", "stats", str(tmp_path / "db")]) == 0
    assert "2 candidates of 1 problems, 0 plans, 1 failed" in capsys.readouterr().out


def test_conditions_survive_the_file_and_old_files_are_read(tmp_path):
    path = saved(tmp_path / "a", p1=GOOD, p2=replace(GOOD, observed=""))
    cache = load_timing_cache(path)
    assert cache.get(replace(KEY, problem="p1")).observed == GOOD.observed
    lines = (tmp_path / "a").read_text().splitlines()
    assert ["observed" in json.loads(line) for line in lines[1:]] == [True, False]


def test_a_bundle_named_like_nothing_else_is_still_tuned(tmp_path, capsys):
    assert main(["tune", str(tmp_path / "absent.zip"), "-o", str(tmp_path / "t")]) == 1
    assert "absent.zip" in capsys.readouterr().err
