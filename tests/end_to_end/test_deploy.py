"""Plans on a board: sent, checked, switched to, taken back; whatever happens in the middle."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny_plans
from support.agents import AgentProcess, edgeplan

from boards.deploy import _confirm, deploy
from boards.errors import CommandFailedError, LinkLostError, StoreError
from boards.link.file_transfer import BoardLink
from boards.store import PlanStore, ReleaseState
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import CodeKind, CodeObject, Plan
from planformat.reader import open_plan
from planformat.release import Release, with_release
from planformat.signing import (
    generate_key,
    public_key_of,
    save_private_key,
    save_public_key,
)
from planformat.writer import plan_bytes, save_plan
from runtime_edge.probe import probe_device


@pytest.fixture
def board(tmp_path):
    with AgentProcess(tmp_path / "store") as agent:
        yield agent


@pytest.fixture
def store(tmp_path):
    return PlanStore(tmp_path / "store")


def saved(folder, plan, name="m.plan", **options):
    """Path of a plan's file."""
    save_plan(plan, folder / name, **options)
    return folder / name


def large_plan(seed=0, size=4 << 20, **options) -> Plan:
    """The tiny plan with weights behind its own that nobody reads."""
    plan = tiny_plans.plan(**options)
    data = bytes(plan.weights) + random.Random(seed).randbytes(size - len(plan.weights))
    return replace(plan, weights=data, chunk_lengths=(1 << 20,) * (size >> 20))


def number(name):
    """A plan that differs from others by its provenance."""
    return replace(tiny_plans.plan(), provenance={"made_by": f"tests {name}"})


def test_deploy_status_run_by_command_line(tmp_path, board, store):
    path = saved(tmp_path, tiny_plans.plan())
    report = json.loads(
        edgeplan(
            "deploy", path, "--to", board.address, "--name", "det", "--activate", "--json"
        ).stdout
    )
    assert report["active"] is True
    assert report["checks"] == ["hashes", "fingerprint", "memory", "canary", "active"]
    assert 0 < report["pieces_sent"] <= report["pieces"]
    assert report["built_latency_us"] == 12.5
    assert report["latency_us"] > 0
    assert store.active("det").read_bytes() == path.read_bytes()
    assert store.record("det", report["release"]).state is ReleaseState.GOOD

    status = json.loads(edgeplan("boards", "status", "--link", board.address, "--json").stdout)
    (plan,) = status["plans"]
    assert (plan["name"], plan["active"]) == ("det", report["release"])
    text = edgeplan("boards", "status", "--link", board.address).stdout
    assert f"active   {report['release']}  good" in text

    values = [i / 8 for i in range(tiny_plans.NUM_ELEMS)]
    (tmp_path / "x.bin").write_bytes(struct.pack(f"<{len(values)}f", *values))
    answer = json.loads(
        edgeplan(
            *("boards", "run", "det", "--link", board.address, "--json"),
            *("--input", f"x={tmp_path / 'x.bin'}", "--output-dir", tmp_path / "out"),
        ).stdout
    )
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"]) == ("y", [1, tiny_plans.NUM_ELEMS])
    got = struct.unpack(f"<{len(values)}f", Path(output["file"]).read_bytes())
    assert got == tuple(tiny_plans.expected_value(x) for x in values)


def test_a_retuned_plan_moves_less_than_a_twentieth(tmp_path, board, store):
    first = large_plan()
    steps = tuple(replace(s, tactic="t9") for s in first.variants[0].profiles[0].steps)
    profile = replace(first.variants[0].profiles[0], steps=steps)
    variant = replace(first.variants[0], profiles=(profile, *first.variants[0].profiles[1:]))
    second = replace(first, variants=(variant,))
    with BoardLink(board.address) as link:
        deploy(link, saved(tmp_path, first), "net", is_activated=True)
        done = deploy(link, saved(tmp_path, second, "b.plan"), "net", is_activated=True)
    assert done.sending.sent_bytes < 0.05 * done.sending.size_bytes
    assert store.active("net").read_bytes() == (tmp_path / "b.plan").read_bytes()
    assert store.previous("net")


def refused(board, path, code, match, **options):
    """Deploying fails with this code and text; what was active stays."""
    with BoardLink(board.address) as link:
        with pytest.raises(CommandFailedError, match=match) as caught:
            deploy(link, path, "net", is_activated=True, **options)
        assert caught.value.code == code
        return link.call("status").fields["plans"]


def test_plans_that_fail_a_check_change_nothing(tmp_path, board, store):
    with BoardLink(board.address) as link:
        good = deploy(link, saved(tmp_path, number("good")), "net", is_activated=True)
    other = DeviceFingerprint("cpu", {**probe_device().fields, "cpu.num_cores": "99"})
    constructor = crashing_code()
    machine = probe_device().fields["cpu.architecture"]
    cases = [
        (tiny_plans.plan(canary_error=1.0), "canary", "canary of profile 'fast' failed"),
        (tiny_plans.plan(fingerprint=other), "fingerprint", "cpu.num_cores"),
        (
            tiny_plans.plan(
                code_object=CodeObject(CodeKind.SHARED_OBJECT, machine, "z", constructor)
            ),
            "crash",
            "brought its process down: it was ended by SIGSEGV",
        ),
        (
            tiny_plans.plan(
                code_object=CodeObject(CodeKind.SHARED_OBJECT, machine, "z", b"\x7fELF")
            ),
            "failed",
            "code",
        ),
        (huge_plan(), "memory", "bytes of memory"),
    ]
    for index, (plan, code, match) in enumerate(cases):
        (row,) = refused(board, saved(tmp_path, plan, f"{index}.plan"), code, match)
        assert row["active"] == good.release
        assert {r["state"] for r in row["releases"]} == {"good", "bad"}
        assert store.active("net").read_bytes() == (tmp_path / "m.plan").read_bytes()


def test_a_plan_that_fails_after_the_switch_is_taken_back(tmp_path, board, store):
    """It passes its check, then its file changes before it is run by its active name."""
    with BoardLink(board.address) as link:
        first = deploy(link, saved(tmp_path, number(1)), "net", is_activated=True)
        second = deploy(link, saved(tmp_path, number(2), "b.plan"), "net")
        path = store.plan_path("net", second.release)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        link.call("activate", {"name": "net", "release": second.release, "trial_s": 0})
        with pytest.raises(CommandFailedError, match=f"active is {first.release}"):
            _confirm(link, "net", second.release, (), is_good=True)
        assert store.generation("net") == first.release
        assert store.record("net", second.release).state is ReleaseState.BAD
        # a second order to go back from the same release does nothing
        answer = link.call("roll_back", {"name": "net", "release": second.release})
        assert answer.fields["active"] == first.release == store.generation("net")


def test_a_failing_check_of_what_runs_is_told_and_leaves_it_running(tmp_path, board, store):
    path = saved(tmp_path, number(1))
    with BoardLink(board.address) as link:
        first = deploy(link, path, "net", is_activated=True)
        stored = store.active("net")
        stored.write_bytes(stored.read_bytes()[:-1])
        with pytest.raises(CommandFailedError, match="cut short"):
            link.call("check", {"name": "net", "release": first.release})
        assert store.generation("net") == first.release
        assert store.record("net", first.release).state is ReleaseState.GOOD
        # deploying the same file again heals it, and only what is damaged travels
        again = deploy(link, path, "net", is_activated=True)
        assert again.sending.num_sent < again.sending.num_pieces
    assert store.active("net").read_bytes() == path.read_bytes()


def huge_plan() -> Plan:
    """A plan whose arena no machine has."""
    plan = tiny_plans.plan()
    variant = plan.variants[0]
    profile = replace(variant.profiles[0], arena_bytes=1 << 39)
    return replace(plan, variants=(replace(variant, profiles=(profile,)),))


def crashing_code() -> bytes:
    """A shared object that crashes whoever loads it."""
    source = "__attribute__((constructor)) static void f(void) { *(volatile int *)16 = 1; }\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.c").write_text(source)
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1"]
        subprocess.run([*command, "-fno-sanitize=all", "a.c", "-o", "a.so"], cwd=folder, check=True)
        return (Path(folder) / "a.so").read_bytes()


def test_a_difference_that_is_allowed_passes(tmp_path, board):
    other = DeviceFingerprint("cpu", {**probe_device().fields, "board.power_mode": "MAXN"})
    path = saved(tmp_path, tiny_plans.plan(fingerprint=other))
    with BoardLink(board.address) as link:
        done = deploy(link, path, "net", is_activated=True, allow=["board.*"])
    assert done.is_active


@pytest.mark.parametrize(
    ("built_us", "match"),
    [(1e-3, "µs at build; "), (1e9, "µs at build: the build's machine was busier")],
)
def test_another_latency_than_at_build_is_explained(tmp_path, board, built_us, match):
    plan = tiny_plans.plan()
    (variant,) = plan.variants
    profiles = tuple(
        replace(profile, canary=replace(profile.canary, latency_us=built_us))
        if profile.canary
        else profile
        for profile in variant.profiles
    )
    plan = replace(plan, variants=(replace(variant, profiles=profiles),))
    with BoardLink(board.address) as link:
        notes = deploy(link, saved(tmp_path, plan), "net").notes
    assert match in notes[0]


def test_only_signed_plans_newer_releases_and_before_expiry(tmp_path):
    key = generate_key()
    save_private_key(key, tmp_path / "k.key")
    save_public_key(public_key_of(key), tmp_path / "k.pub")
    with AgentProcess(tmp_path / "store", options=["--key", tmp_path / "k.pub"]) as board:
        plain = saved(tmp_path, tiny_plans.plan())
        refused(board, plain, "signature", "not signed|signature")
        foreign = saved(tmp_path, tiny_plans.plan(), "f.plan", signing_key=generate_key())
        refused(board, foreign, "signature", "key")
        edgeplan("sign", plain, "--key", tmp_path / "k.key", "--release", "5")
        with BoardLink(board.address) as link:
            done = deploy(link, plain, "net", is_activated=True)
            assert "hashes and signature" in done.steps
        for release, match in (
            (Release(4), "release 4, this board takes 5"),
            (Release(0), "release 0, this board takes 5"),
            (Release(6, "2026-01-02"), "valid until 2026-01-02"),
        ):
            path = saved(
                tmp_path, with_release(tiny_plans.plan(), release), "r.plan", signing_key=key
            )
            (row,) = refused(board, path, "release", match)
            assert row["active"] == done.release
        path = saved(
            tmp_path,
            with_release(tiny_plans.plan(), Release(6, "2999-12-31")),
            "r.plan",
            signing_key=key,
        )
        with BoardLink(board.address) as link:
            assert deploy(link, path, "net", is_activated=True).is_active


def end_trial(store, release):
    """Let a trial's time be up now, whatever it was: the clock is that of the agent."""
    store.update("net", replace(store.record("net", release), trial_ends_s=time.monotonic()))


def wait_for_state(store, release, state, timeout_s=120.0):
    """Whether a release gets into a state."""
    end = time.monotonic() + timeout_s
    while store.record("net", release).state is not state and time.monotonic() < end:
        time.sleep(0.01)
    return store.record("net", release).state is state


def test_a_trial_that_nobody_confirms_ends_by_itself(tmp_path, board, store):
    with BoardLink(board.address) as link:
        first = deploy(link, saved(tmp_path, number(1)), "net", is_activated=True)
        second = deploy(
            link, saved(tmp_path, number(2), "b.plan"), "net", is_activated=True, trial_s=600
        )
        assert store.generation("net") == second.release
        end_trial(store, second.release)
        assert store.wait_for_switch("net", second.release, 120) == first.release
        # the switch comes first, then the word on what was left
        assert wait_for_state(store, second.release, ReleaseState.BAD)
        third = deploy(
            link, saved(tmp_path, number(3), "c.plan"), "net", is_activated=True, trial_s=600
        )
    edgeplan("boards", "mark-good", "net", "--link", board.address)
    end_trial(store, third.release)
    # the agent looks every second: had the end of the trial counted, it would have gone back
    assert store.wait_for_switch("net", third.release, 2.5) == third.release
    back = json.loads(
        edgeplan("boards", "rollback", "net", "--link", board.address, "--json").stdout
    )
    assert back["active"] == first.release == store.generation("net")


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]
)
def test_an_agent_killed_at_any_moment_leaves_a_whole_plan_active(tmp_path, seed):
    """Old or new, never a part, and the next attempt succeeds."""
    store = PlanStore(tmp_path / "store")
    paths = [saved(tmp_path, large_plan(i, 2 << 20), f"{i}.plan") for i in (1, 2)]
    contents = {path.read_bytes() for path in paths}
    with AgentProcess(tmp_path / "store") as board, BoardLink(board.address) as link:
        deploy(link, paths[0], "net", is_activated=True)
    board = AgentProcess(tmp_path / "store")
    killer = threading.Timer(random.Random(seed).uniform(0.02, 0.9), board.kill)
    killer.start()
    try:
        with BoardLink(board.address, patience_s=0) as link:
            deploy(link, paths[1], "net", is_activated=True)
    except LinkLostError:
        pass
    killer.join()
    active = store.active("net")
    assert active.read_bytes() in contents
    open_plan(active).close()
    with AgentProcess(tmp_path / "store") as again, BoardLink(again.address) as link:
        done = deploy(link, paths[1], "net", is_activated=True)
    assert done.is_active
    assert store.active("net").read_bytes() == paths[1].read_bytes()


def test_a_store_on_this_machine_and_a_bundle(tmp_path):
    paths = [saved(tmp_path, number(i), f"net{i}.plan") for i in (1, 2)]
    folder, store = tmp_path / "stick", PlanStore(tmp_path / "store")
    edgeplan("bundle", paths[0], f"second={paths[1]}", "-o", folder)
    assert "--to store:///var/lib/edgeplan" in (folder / "README.txt").read_text()
    edgeplan("deploy", folder, "--to", f"store://{store.root}", "--activate")
    assert store.names() == ("net1", "second")
    assert store.active("second").read_bytes() == paths[1].read_bytes()
    data = bytearray((folder / "plans" / "net1.plan").read_bytes())
    data[-1] ^= 1
    (folder / "plans" / "net1.plan").write_bytes(data)
    done = edgeplan("deploy", folder, "--to", f"store://{store.root}", check=False)
    assert done.returncode == 1
    assert "copy the bundle again" in done.stderr


@pytest.mark.parametrize(
    "index",
    [
        {"plans": [{"name": "../x", "sha256": ""}]},
        {"plans": 7},
        {"plans": [{}]},
        {"version": 2, "plans": []},
    ],
)
def test_hostile_bundles_are_refused(tmp_path, index):
    from boards.bundle import read_bundle

    content = {"format": "edgeplan-board-bundle", "version": 1, **index}
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(StoreError):
        read_bundle(tmp_path)


def test_a_file_that_is_no_plan_is_not_sent(tmp_path, board):
    (tmp_path / "x.plan").write_bytes(b"not a plan")
    done = edgeplan("deploy", tmp_path / "x.plan", "--to", board.address, check=False)
    assert done.returncode == 1
    assert "this is not a PLAN file" in done.stderr


def test_probe_by_link_and_its_differences(tmp_path, board):
    told = json.loads(edgeplan("boards", "probe", "--link", board.address, "--json").stdout)
    assert told["fields"] == dict(probe_device().fields)
    told["fields"]["cpu.num_cores"] = "99"
    (tmp_path / "other.json").write_text(json.dumps(told))
    done = edgeplan("boards", "probe", "--compare", tmp_path / "other.json", check=False)
    assert done.returncode == 1
    assert "1 field differs from" in done.stdout
    assert "cpu.num_cores: wanted is '99'" in done.stdout


def test_two_boards_are_compared_field_by_field(tmp_path, board):
    """By their links: why each difference matters, and which ones do not."""
    same = edgeplan("boards", "probe", "--link", board.address, "--compare", board.address)
    assert same.stdout == f"the device satisfies {board.address}\n"
    other = {"device_kind": "cpu", "fields": dict(probe_device().fields)}
    other["fields"] |= {"os.glibc": "2.17", "cpu.architecture": "another"}
    del other["fields"]["cpu.num_cores"]
    (tmp_path / "other.json").write_text(json.dumps(other))
    done = edgeplan(
        *("boards", "probe", "--link", board.address, "--compare", tmp_path / "other.json"),
        "--json",
        check=False,
    )
    assert done.returncode == 1
    told = json.loads(done.stdout)
    (difference,) = told["differences"]
    assert (difference["field"], difference["wanted"]) == ("cpu.architecture", "another")
    assert difference["device"] == probe_device().fields["cpu.architecture"]
    assert "one instruction set only" in difference["why"]
    assert "rebuild" in difference["do"]
    assert [(row["field"], row["why"]) for row in told["harmless"]] == [
        ("cpu.num_cores", "not compared"),
        ("os.glibc", "at least is enough"),
    ]


def test_a_board_with_a_key_is_probed_by_the_key_of_the_environment(tmp_path, monkeypatch):
    edgeplan("link-key", tmp_path / "key")
    with AgentProcess(tmp_path / "store", options=["--link-key", tmp_path / "key"]) as board:
        monkeypatch.setenv("EDGEPLAN_LINK_KEY", str(tmp_path / "key"))
        told = json.loads(edgeplan("boards", "probe", "--link", board.address, "--json").stdout)
    assert told["fields"] == dict(probe_device().fields)


def test_transfers_of_plans_survive_damage_on_the_disk(tmp_path, store):
    """Bits that the power took although the bitmap has them are found by the last hash."""
    path = saved(tmp_path, large_plan(3))
    data = path.read_bytes()

    def kill_late(done, total):
        if done == total - 5:
            board.kill()

    board = AgentProcess(tmp_path / "store")
    with BoardLink(board.address, patience_s=0) as link, pytest.raises(LinkLostError):
        deploy(link, path, "net", progress=kill_late)
    (part,) = (tmp_path / "store" / "incoming").glob("*/part")
    with open(part, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"\0" * 100)
    with AgentProcess(tmp_path / "store") as again, BoardLink(again.address) as link:
        done = deploy(link, path, "net", is_activated=True)
    assert store.active("net").read_bytes() == data == plan_bytes(large_plan(3))
    assert 1 < done.sending.num_sent <= 7
