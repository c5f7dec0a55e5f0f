"""Builds that are tuned on boards at the other end of links, and compiled on a cluster."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.agents import AgentProcess, edgeplan
from support.cases import DATA

import builder_host as bh
import runtime_edge
from boards.link.key_file import write_link_key
from builder_host.codegen.executors import open_executor
from builder_host.errors import BuilderError, CompileError, MeasureError, TargetError
from builder_host.measure.remote import BoardOptions, RemoteBoards
from builder_host.tune.timing_cache import load_timing_cache
from planformat.fingerprint import fingerprint_to_json
from planformat.reader import open_plan
from runtime_edge.probe import probe_device

MODEL = DATA / "onnx" / "mnist" / "mnist-8.onnx"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def board(tmp_path):
    with AgentProcess(tmp_path / "store") as agent:
        yield agent


def config(artifacts, **options):
    """Options of small builds."""
    return bh.BuilderConfig(num_threads=1, artifact_dir=artifacts, **options)


def test_a_build_measures_on_the_board_and_runs_there(board, artifacts, tmp_path):
    cache = tmp_path / "t.cache"
    built = bh.build(
        bh.import_onnx(MODEL), config(artifacts, boards=(board.address,), timing_cache=cache)
    )
    assert built.report.tuning.num_measured == built.report.tuning.num_candidates > 10
    timings = [timing for _, timing in load_timing_cache(cache)]
    assert all("num_cores=" in timing.observed for timing in timings)
    variant = built.plan.variants[0]
    assert variant.fingerprint == probe_device()
    assert variant.profiles[0].canary.latency_us > 0
    assert built.plan.provenance["tactics"] == "measured"

    # the timings make a strict build without any device, byte for byte the same
    strict = config(artifacts, timing_cache=cache, is_strict_cache=True, measure="none")
    again = bh.build(bh.import_onnx(MODEL), strict)
    assert again.report.tuning.num_cached == built.report.tuning.num_candidates
    assert again.to_bytes() == built.to_bytes()

    built.save(tmp_path / "m.plan")
    edgeplan("deploy", tmp_path / "m.plan", "--to", board.address, "--name", "mnist", "--activate")
    image = np.random.default_rng(1).random((1, 1, 28, 28), np.float32)
    np.save(tmp_path / "x.npy", image)
    edgeplan(
        *("boards", "run", "mnist", "--link", board.address),
        *("--input", f"Input3={tmp_path / 'x.npy'}", "--output-dir", tmp_path / "out"),
    )
    there = np.fromfile(tmp_path / "out" / "Plus214_Output_0.bin", np.float32)
    with runtime_edge.load(tmp_path / "m.plan") as engine, engine.create_context() as context:
        here = np.array(context.execute({"Input3": image})["Plus214_Output_0"])
    assert np.array_equal(there, here.ravel())


@pytest.mark.slow
def test_by_command_line_two_boards_with_a_key_share_the_work(tmp_path):
    write_link_key(tmp_path / "key")
    options = ["--link-key", tmp_path / "key"]
    with (
        AgentProcess(tmp_path / "a", options=options) as first,
        AgentProcess(tmp_path / "b", options=options) as second,
    ):
        edgeplan(
            *("build", MODEL, "-o", tmp_path / "m.plan", "--threads", "1"),
            *("--measure", first.address, "--measure", second.address, *options),
            *("--timing-cache", tmp_path / "t.cache"),
        )
        for folder in ("a", "b"):
            assert list((tmp_path / folder / "cache").glob("*/content")), folder
    with open_plan(tmp_path / "m.plan") as opened:
        assert opened.plan.variants[0].profiles[0].canary.latency_us > 0


def test_a_board_that_dies_leaves_its_work_to_the_other(artifacts, tmp_path):
    with AgentProcess(tmp_path / "a") as first, AgentProcess(tmp_path / "b") as second:
        seen = []

        def progress(phase, done, total):
            seen.append((phase, done))
            if phase == "measure" and done == 1:
                first.kill()

        boards = RemoteBoards(
            [first.address, second.address], BoardOptions(patience_s=0.5), progress, device="cpu"
        )
        try:
            job = bh.import_onnx(MODEL)
            timings = measured(job, boards, artifacts)
        finally:
            boards.close()
    assert all(timing.median_us for timing in timings)


def test_a_board_that_comes_back_goes_on(artifacts, tmp_path):
    board = AgentProcess(tmp_path / "a")
    restarted = []

    def restart():
        board.kill()
        restarted.append(AgentProcess(tmp_path / "a", port=board.port))

    def progress(phase, done, total):
        if phase == "measure" and done == 3 and not restarted:
            thread = threading.Thread(target=restart)
            thread.start()

    boards = RemoteBoards([board.address], BoardOptions(patience_s=30), progress, device="cpu")
    try:
        timings = measured(bh.import_onnx(MODEL), boards, artifacts)
    finally:
        boards.close()
        for one in (board, *restarted):
            one.stop()
    assert restarted
    assert all(timing.median_us for timing in timings)


def measured(network, boards, artifacts):
    """Timings of a network's candidates on boards."""
    from builder_host.builder import _Build

    build = _Build(network, config(artifacts), lambda *_: None, None, boards)
    rows = build.tuner.rows(build._problems())
    prepared = build.tuner.prepare(build.tuner.missing(rows))
    return boards.measure(prepared.jobs, 1)


def test_no_board_is_left(artifacts, tmp_path):
    with AgentProcess(tmp_path / "a") as board:
        boards = RemoteBoards(
            [board.address], BoardOptions(patience_s=0.2), lambda *_: None, device="cpu"
        )
    try:
        with pytest.raises(MeasureError, match="no board was left"):
            measured(bh.import_onnx(MODEL), boards, artifacts)
    finally:
        boards.close()


def test_a_board_that_is_not_the_target_is_refused(board, artifacts, tmp_path):
    other = probe_device()
    fields = {**other.fields, "cpu.model": "another"}
    (tmp_path / "other.json").write_text(
        fingerprint_to_json(type(other)(other.device_kind, fields))
    )
    options = config(artifacts, boards=(board.address,), target=str(tmp_path / "other.json"))
    with pytest.raises(TargetError, match=r"cpu\.model"):
        bh.build(bh.import_onnx(MODEL), options)


def test_boards_and_no_measuring_contradict():
    with pytest.raises(BuilderError, match="measure is 'none'"):
        bh.BuilderConfig(boards=("tcp://x:1",), measure="none")


def test_links_and_other_places_are_not_mixed(tmp_path):
    done = edgeplan(
        *("build", MODEL, "-o", tmp_path / "m", "--measure", "local", "--measure", "tcp://a:1"),
        check=False,
    )
    assert done.returncode == 1
    assert "only links can be combined" in done.stderr


def test_a_predicted_build_says_so(artifacts):
    built = bh.build(bh.import_onnx(MODEL), config(artifacts, measure="none", is_checked=False))
    assert built.plan.provenance["tactics"].endswith("predicted by the cost model")
    steps = built.plan.variants[0].profiles[0].steps
    assert all(step.measured_us is None and step.predicted_us is not None for step in steps)


# --- compile farm ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # third-party code in threads of its own
def test_a_dask_cluster_compiles_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    options = {"num_threads": 1, "measure": "none", "is_checked": False}
    here = bh.build(bh.import_onnx(MODEL), bh.BuilderConfig(artifact_dir=tmp_path / "a", **options))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        there = bh.build(
            bh.import_onnx(MODEL),
            bh.BuilderConfig(artifact_dir=tmp_path / "b", executor=address, **options),
        )
    assert there.to_bytes() == here.to_bytes()


@pytest.mark.parametrize("text", ["dask://", "ray://h:1", "dask://h", "dask://h:x"])
def test_executors_that_do_not_exist(text):
    with pytest.raises(CompileError, match="expected dask://HOST:PORT"), open_executor(text):
        pass
