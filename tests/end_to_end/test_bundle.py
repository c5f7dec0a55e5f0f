"""A tuning bundle: written by the builder, timed by the runtime alone, used by a strict build."""

from __future__ import annotations

import json
import zipfile

import pytest
from support.cases import DATA

import builder_host as bh
from builder_host.builder import write_tuning_bundle
from builder_host.tune.timing_cache import load_timing_cache
from runtime_edge.bundle import BundleError, cache_text, read_bundle
from runtime_edge.cli import main
from runtime_edge.tuning import CpuTuneDevice, tune

MODEL = DATA / "onnx" / "mnist" / "mnist-8.onnx"


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    config = bh.BuilderConfig(num_threads=1, artifact_dir=folder / "artifacts", is_checked=False)
    count = write_tuning_bundle(bh.import_onnx(MODEL), folder / "b.zip", config)
    assert count == len(read_bundle(folder / "b.zip").jobs) > 5
    return folder / "b.zip"


def test_timings_of_a_bundle_satisfy_a_strict_build(bundle_path, tmp_path):
    bundle = read_bundle(bundle_path)
    device = CpuTuneDevice(bundle.support, num_workers=bundle.num_workers, flush_bytes=0)
    results = tune(device, bundle.jobs)
    assert all(result.median_us > 0 for result in results)
    (tmp_path / "t.cache").write_text(cache_text(bundle, results))
    assert len(load_timing_cache(tmp_path / "t.cache")) == len(results)
    built = bh.build(
        bh.import_onnx(MODEL),
        bh.BuilderConfig(
            num_threads=1,
            timing_cache=tmp_path / "t.cache",
            is_strict_cache=True,
            artifact_dir=bundle_path.parent / "artifacts",
            is_checked=False,
        ),
    )
    assert built.report.tuning.num_cached == len(results)


def test_equal_candidates_give_equal_bytes(bundle_path, tmp_path):
    config = bh.BuilderConfig(
        num_threads=1, artifact_dir=bundle_path.parent / "artifacts", is_checked=False
    )
    write_tuning_bundle(bh.import_onnx(MODEL), tmp_path / "again.zip", config)
    assert (tmp_path / "again.zip").read_bytes() == bundle_path.read_bytes()


def edited(bundle_path, target, change):
    """A copy of the bundle whose index was changed."""
    with zipfile.ZipFile(bundle_path) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "bundle.json":
                index = json.loads(data)
                change(index)
                data = json.dumps(index).encode()
            new.writestr(info.filename, data)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(version=9), "version 9"),
        (lambda i: i.pop("jobs"), "jobs"),
        (lambda i: i["jobs"][0].update(code="code/99999"), "99999"),
        (lambda i: i["jobs"][0].update(argument_bytes=[-1]), "-1 is not"),
        (lambda i: i["jobs"][0].update(argument_bytes=[1 << 60]), "is not a whole number"),
        (lambda i: i["jobs"][0]["launches"][0].update(grid=[1]), "malformed"),
        (lambda i: i.update(num_workers="many"), "'many' is not"),
    ],
)
def test_hostile_bundles_are_refused(bundle_path, tmp_path, change, message):
    with pytest.raises(BundleError, match=message):
        read_bundle(edited(bundle_path, tmp_path / "bad.zip", change))


def test_truncated_bundles_are_refused(bundle_path, tmp_path):
    data = bundle_path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.zip").write_bytes(data[:length])
        with pytest.raises(BundleError, match="not a tuning bundle"):
            read_bundle(tmp_path / "cut.zip")


def test_timings_of_an_earlier_run_are_not_overwritten(tmp_path, capsys):
    old = tmp_path / "t.cache"
    old.write_text("hours of work")
    assert main(["tune", str(tmp_path / "b.zip"), "-o", str(old)]) == 1
    assert "is there already and would lose its timings" in capsys.readouterr().err
    assert old.read_text() == "hours of work"


def test_forced_timings_replace_a_file(bundle_path, tmp_path):
    old = tmp_path / "t.cache"
    old.write_text("not timings")
    assert main(["tune", str(bundle_path), "-o", str(old), "--force"]) == 0
    assert len(load_timing_cache(old)) == len(read_bundle(bundle_path).jobs)
