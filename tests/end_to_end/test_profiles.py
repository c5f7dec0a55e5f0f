"""Several profiles in one plan: shared weights, each profile right, batches split and padded."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA
from support.commands import edgeplan

import runtime_edge
from runtime_edge.batching import Piece
from runtime_edge.errors import BindingError, StrictModeError

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")
IMAGES = np.load(DATA / "images/mnist/t10k_first1000.npz")["images"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with three.plan (batch 1, 4, 8) and one.plan (batch 1)."""
    made = tmp_path_factory.mktemp("profiles")
    options = ("--measure", "none", "--sharing-tolerance", 1.5)
    edgeplan("build", *LENET, "-o", "three.plan", "--batch", "1,4,8", *options, cwd=made)
    edgeplan("build", *LENET, "-o", "one.plan", "--batch", 1, *options, cwd=made)
    return made


@pytest.fixture(scope="module")
def engine(folder):
    """The plan of three profiles, loaded."""
    return runtime_edge.load(folder / "three.plan")


@pytest.fixture(scope="module")
def expected(folder):
    """Outputs of the plan of one profile for the first thirty images, one by one."""
    with runtime_edge.load(folder / "one.plan").create_context() as context:
        return np.concatenate([context.execute({"data": row[None]})["prob"] for row in _rows(30)])


def _rows(count):
    return (IMAGES[:count, None] / 256).astype(np.float32)


def test_weights_are_shared(folder):
    one, three = (
        len(runtime_edge.load(folder / f"{n}.plan").plan.weights) for n in ("one", "three")
    )
    assert three <= 1.1 * one


@pytest.mark.parametrize("profile", ["batch1", "batch4", "batch8"])
def test_each_profile_computes_what_single_images_give(engine, expected, profile):
    rows = int(profile.removeprefix("batch"))
    with engine.create_context(profile=profile) as context:
        prob = context.execute({"data": _rows(rows)})["prob"]
    np.testing.assert_allclose(prob, expected[:rows], atol=2e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 13, 30])
def test_any_batch_is_covered_split_and_padded(engine, expected, rows):
    with runtime_edge.BatchRunner(engine) as runner:
        pieces = runner.pieces(rows)
        assert sum(piece.num_rows for piece in pieces) == rows
        assert [piece.start for piece in pieces] == [
            sum(p.num_rows for p in pieces[:i]) for i in range(len(pieces))
        ]
        prob = runner.run({"data": _rows(rows)})["prob"]
    assert prob.shape == (rows, 10)
    np.testing.assert_allclose(prob, expected[:rows], atol=2e-6)


def test_the_largest_profile_comes_first(engine):
    with runtime_edge.BatchRunner(engine) as runner:
        assert runner.largest_batch == 8
        assert runner.pieces(17)[:2] == [Piece("batch8", 0, 8), Piece("batch8", 8, 8)]


def test_strict_mode_takes_the_callers_arena_only(folder):
    config = runtime_edge.RuntimeConfig(strict=True)
    with runtime_edge.load(folder / "three.plan", config=config) as engine:
        with pytest.raises(StrictModeError, match="pass arena="):
            runtime_edge.BatchRunner(engine)
        needed = max(engine.context_bytes(name) for name in engine.profiles)
        memory = np.zeros(needed + 64, np.uint8)
        arena = (memory.ctypes.data + -memory.ctypes.data % 64, needed)
        with runtime_edge.BatchRunner(engine, arena=arena) as runner:
            assert runner.largest_batch == 8


def test_wrong_batches_are_refused(engine):
    with runtime_edge.BatchRunner(engine) as runner:
        with pytest.raises(BindingError, match="a batch of 0 rows"):
            runner.run({"data": _rows(0)})
        with pytest.raises(BindingError, match="'data' is missing"):
            runner.run({})
        with pytest.raises(BindingError, match="shape"):
            runner.run({"data": np.zeros((3, 1, 28, 27), np.float32)})


def test_the_command_line_takes_any_batch(folder, expected):
    np.save(folder / "x.npy", _rows(11))
    edgeplan("run", "three.plan", "--input", "data=x.npy", "--output-dir", "out", cwd=folder)
    np.testing.assert_allclose(np.load(folder / "out/prob.npy"), expected[:11], atol=2e-6)


def test_profiles_by_name_and_their_mistakes(tmp_path):
    options = ("-o", "x.plan", "--measure", "none")
    edgeplan(
        *("build", *LENET, *options, "--profile", "small=data:2x1x28x28", "--profile"),
        "large=data:3x1x28x28",
        cwd=tmp_path,
    )
    assert runtime_edge.load(tmp_path / "x.plan").profiles == ("small", "large")
    twice = ("--profile", "a=data:2x1x28x28", "--profile", "a=data:3x1x28x28")
    done = edgeplan("build", *LENET, *options, *twice, cwd=tmp_path, status=1)
    assert "profile 'a' is given twice" in done.stderr
    both = ("--batch", "1,2", "--profile", "a=data:2x1x28x28")
    done = edgeplan("build", *LENET, *options, *both, cwd=tmp_path, status=1)
    assert "use one of them" in done.stderr
    done = edgeplan("build", *LENET, *options, "--sharing-tolerance", 0.5, cwd=tmp_path, status=1)
    assert "sharing_tolerance is 0.5" in done.stderr
