"""Plans on an emulated aarch64 machine at the other end of its serial console.

The machine is what QEMU makes of a Cortex-A57: an operating system, a disk and a UART of its own.
Its timings mean nothing; that they are taken there, and what becomes of them, is the same as on a
board.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.agents import edgeplan
from support.cases import case, load, model_paths, preprocessed
from support.emulated_board import EmulatedBoard, require_emulators

import builder_host as bh
import runtime_edge
from boards.deploy import deploy
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, send_plan
from boards.store.pieces import MAX_PIECE_BYTES
from builder_host.tune.timing_cache import TimingCache, TimingKey, load_timing_cache
from planformat.reader import open_plan
from planformat.writer import save_plan

pytestmark = pytest.mark.emulated
MNIST = case("onnx/mnist/test_data_0")
LENET = case("caffe/lenet/digits")
INPUT, OUTPUT = "data", "prob"


def mnist() -> bh.Network:
    """24 KB of weights: little to send over the console."""
    return bh.import_onnx(*model_paths(MNIST))


def lenet() -> bh.Network:
    """1.7 MB of weights, two convolutions, one image at a time."""
    return bh.import_caffe(*model_paths(LENET), shapes={INPUT: (1, 1, 28, 28)}, outputs=[OUTPUT])


def images() -> np.ndarray:
    """Preprocessed digits."""
    return preprocessed(LENET, load(LENET.inputs[INPUT])).astype(np.float32)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Folder of the machine; what is deployed stays from test to test, as on a board."""
    require_emulators()
    return tmp_path_factory.mktemp("machine")


@pytest.fixture
def board(disk):
    with EmulatedBoard(disk) as machine:
        yield machine


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Folder of compiled kernels, and of what `tuned` made."""
    return tmp_path_factory.mktemp("work")


@dataclass(frozen=True)
class Tuned:
    """LeNet as it was timed on the machine; its plan is deployed there as `lenet`."""

    built: bh.BuiltPlan
    plan: Path
    cache: Path


@pytest.fixture(scope="module")
def tuned(disk, work):
    """Made once, on a machine that is switched off again, for whichever test runs first."""
    plan, cache = work / "lenet.plan", work / "t.cache"
    with EmulatedBoard(disk) as machine:
        built = bh.build(lenet(), config(work, boards=(machine.address,), timing_cache=cache))
        built.save(plan)
        deployed(machine, plan, "lenet")
    return Tuned(built, plan, cache)


def config(work, **options) -> bh.BuilderConfig:
    """Options of all builds here."""
    return bh.BuilderConfig(num_threads=1, artifact_dir=work / "artifacts", **options)


def active(link: BoardLink, name: str) -> str:
    """Release that a name stands for, or an empty text."""
    plans = link.call("status").fields["plans"]
    return next((str(plan["active"] or "") for plan in plans if plan["name"] == name), "")


def check_timings(built, cache) -> None:
    """Every candidate was timed there, and the plan says what for."""
    tuning = built.report.tuning
    assert tuning.num_measured == tuning.num_candidates > 10
    timings = [timing for _, timing in load_timing_cache(cache)]
    assert all(timing.median_us or timing.error for timing in timings)
    assert all("num_cores=2" in timing.observed for timing in timings)
    assert built.plan.variants[0].profiles[0].canary.latency_us > 0


def deployed(board, path, name):
    """What the command line says of a deployment that ends well."""
    done = edgeplan(
        *("deploy", path, "--to", board.address, "--patience", 120),
        *("--name", name, "--activate", "--json"),
    )
    report = json.loads(done.stdout)
    assert report["active"] is True
    assert report["checks"] == ["hashes", "fingerprint", "memory", "canary", "active"]
    return report


def run_there(board, name, binding, values, folder) -> np.ndarray:
    """The only output of a plan, by the command line."""
    np.save(folder / "x.npy", values)
    edgeplan(
        *("boards", "run", name, "--link", board.address, "--patience", 120),
        *("--input", f"{binding}={folder / 'x.npy'}", "--output-dir", folder / "out"),
    )
    (file,) = (folder / "out").iterdir()
    return np.fromfile(file, np.float32)


def test_tuned_over_the_console_deployed_and_right(board, work, tmp_path):
    probed = json.loads(
        edgeplan("boards", "probe", "--link", board.address, "--patience", 120, "--json").stdout
    )
    fields = probed["fields"]
    assert fields["cpu.architecture"] == "aarch64"
    assert fields["cpu.model"].startswith("0x41/0xd07")  # Arm, Cortex-A57

    built = bh.build(
        mnist(), config(work, boards=(board.address,), timing_cache=tmp_path / "t.cache")
    )
    check_timings(built, tmp_path / "t.cache")
    assert built.plan.variants[0].fingerprint.fields == fields
    built.save(tmp_path / "mnist.plan")
    deployed(board, tmp_path / "mnist.plan", "mnist")

    ((binding, path),) = MNIST.inputs.items()
    ((output, expected),) = MNIST.outputs.items()
    image = load(path).astype(np.float32)
    there = run_there(board, "mnist", binding, image, tmp_path)
    bh.build(mnist(), config(work, measure="none")).save(tmp_path / "here.plan")
    with (
        runtime_edge.load(tmp_path / "here.plan") as engine,
        engine.create_context() as context,
    ):
        here = np.array(context.execute({binding: image})[output]).ravel()
    np.testing.assert_allclose(there, here, rtol=0, atol=2 * MNIST.atol)
    np.testing.assert_allclose(there, load(expected).ravel(), rtol=0, atol=MNIST.atol)


@pytest.mark.slow
def test_a_larger_network_is_right_for_several_images(tuned, board, tmp_path):
    check_timings(tuned.built, tuned.cache)
    expected = load(LENET.outputs[OUTPUT])
    for index, digit in enumerate(images()[:3]):
        there = run_there(board, "lenet", INPUT, digit[None], tmp_path)
        np.testing.assert_allclose(there, expected[index].ravel(), rtol=0, atol=LENET.atol)


def retuned(cache: TimingCache, used: list[str]) -> TimingCache:
    """The timings of a day on which one of the tactics in use was the slowest of its problem."""
    records = dict(cache)
    rows: dict[str, dict[TimingKey, float]] = {}
    for key, timing in records.items():
        if "conv" in key.problem and timing.median_us is not None:
            rows.setdefault(key.problem, {})[key] = timing.median_us
    best = {problem: min(times, key=times.__getitem__) for problem, times in rows.items()}
    tactics = Counter(key.tactic for key in best.values())
    # a tactic that is the best of several problems may be in use for another one
    for problem in sorted(rows, key=lambda problem: (tactics[best[problem].tactic], problem)):
        key = best[problem]
        if len(rows[problem]) > 1 and key.tactic in used:
            records[key] = replace(records[key], median_us=10 * max(rows[problem].values()))
            return TimingCache(records)
    raise AssertionError(f"no convolution was chosen between tactics: {used}")


@pytest.mark.slow
def test_a_retuned_plan_moves_less_than_a_twentieth(tuned, board, work, tmp_path, capsys):
    cache, plan = tmp_path / "again.cache", tmp_path / "again.plan"
    with open_plan(tuned.plan) as opened:
        before = [step.tactic for step in opened.plan.variants[0].profiles[0].steps]
    retuned(load_timing_cache(tuned.cache), before).save(cache)
    built = bh.build(lenet(), config(work, boards=(board.address,), timing_cache=cache))
    assert [step.tactic for step in built.plan.variants[0].profiles[0].steps] != before
    built.save(plan)
    with BoardLink(board.address) as link:
        done = deploy(link, plan, "lenet", is_activated=True)
    assert done.previous
    share = done.sending.sent_bytes / done.sending.size_bytes
    with capsys.disabled():
        print(
            f"\nretuned: {done.sending.sent_bytes:,} of {done.sending.size_bytes:,} bytes "
            f"travelled ({share:.2%})"
        )
    assert 0 < share < 0.05


@pytest.mark.slow
def test_a_power_cut_in_mid_transfer_costs_less_than_two_pieces(tuned, disk, tmp_path, capsys):
    """The first half of the pieces is there after the restart, and what was active still is."""
    weights = np.random.default_rng(1).bytes(1 << 20)
    with open_plan(tuned.plan) as opened:
        plan = replace(
            opened.plan,
            weights=bytes(opened.plan.weights) + weights,
            chunk_lengths=(*opened.plan.chunk_lengths, len(weights)),
        )
        save_plan(plan, tmp_path / "large.plan")
    machine = EmulatedBoard(disk)
    restarted = threading.Event()
    try:
        machine.start().wait()
        with BoardLink(machine.address, patience_s=120) as link:
            before = active(link, "lenet")
            seen: list[tuple[int, int]] = []

            def progress(confirmed: int, missing: int) -> None:
                seen.append((confirmed, missing))
                if confirmed >= 8 and not restarted.is_set():
                    restarted.set()
                    machine.cut_power()
                    machine.start()

            release, sending = send_plan(link, tmp_path / "large.plan", "lenet", progress)
            assert restarted.is_set()
            first_missing = seen[0][1]
            assert first_missing >= len(weights) // MAX_PIECE_BYTES
            with capsys.disabled():
                print(
                    f"\npower cut: {sending.num_resent} pieces went again, of which "
                    f"{sending.resent_bytes:,} bytes had travelled"
                )
            assert sending.num_losses == 1
            assert sending.resent_bytes < 2 * MAX_PIECE_BYTES
            assert sending.num_sent - sending.num_resent == first_missing
            assert sending.num_received <= first_missing  # nothing came whole twice
            assert active(link, "lenet") == before != release
    finally:
        machine.cut_power()


@pytest.mark.slow
def test_an_agent_starts_from_the_consoles_shell_and_leaves_it(disk):
    machine = EmulatedBoard(disk, console="shell")
    address = f"serial://{disk / 'console'}?start=edgeplan%20agent%20--stdio"
    try:
        machine.start()
        for _ in range(2):  # the shell that is left behind starts another one
            with connect(address) as client:
                assert client.call("ping").fields is not None
    finally:
        machine.cut_power()
