"""The A/B store: switching, going back, refusing, and what a reader sees meanwhile."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from boards.errors import ReleaseRefusedError, StoreError
from boards.store import PlanStore, ReleaseRecord, ReleaseState, trials


@pytest.fixture
def store(tmp_path):
    return PlanStore(tmp_path / "store")


def add(store, content, name="net", number=0, state=ReleaseState.CHECKED):
    """Put a file into the store as a checked release; returns its id."""
    store.root.mkdir(exist_ok=True)
    digest = hashlib.sha256(content).hexdigest()
    source = store.root / "source"
    source.write_bytes(content)
    record = ReleaseRecord(digest[:16], digest, len(content), number=number, state=state)
    store.add(name, source, record)
    return digest[:16]


def test_nothing_is_active_at_first(store):
    assert store.names() == ()
    assert store.generation("net") == ""
    with pytest.raises(StoreError, match="nothing is active as 'net'"):
        store.active("net")


def test_activate_switches_and_keeps_one_before(store):
    ids = [add(store, b"one")]
    store.activate("net", ids[0])
    assert store.active("net").read_bytes() == b"one"
    for content in (b"two", b"three"):
        ids.append(add(store, content))
        store.activate("net", ids[-1])
    assert store.active("net").read_bytes() == b"three"
    assert store.previous("net") == ids[1]
    assert [record.release_id for record in store.releases("net")] == sorted(ids[1:])
    assert store.names() == ("net",)


def test_roll_back_returns_to_the_release_before_and_marks_the_other_bad(store):
    first, second = add(store, b"one"), add(store, b"two")
    store.activate("net", first)
    second = add(store, b"two")
    store.activate("net", second)
    assert store.roll_back("net", "it smoked") == first
    assert store.active("net").read_bytes() == b"one"
    assert store.record("net", second).reason == "it smoked"
    with pytest.raises(ReleaseRefusedError, match="is bad: it smoked"):
        store.activate("net", second)
    assert store.roll_back("net", "this too") == ""
    assert store.generation("net") == ""


def test_an_unchecked_release_is_never_activated(store):
    release = add(store, b"one", state=ReleaseState.STAGED)
    with pytest.raises(ReleaseRefusedError, match="is staged"):
        store.activate("net", release)
    assert store.generation("net") == ""


def test_floor_rises_when_a_release_is_good_and_refuses_older_numbers(store):
    store.activate("net", add(store, b"five", number=5), trial_s=0)
    assert store.floor("net") == 0
    store.mark_good("net")
    assert store.floor("net") == 5
    store.check_release("net", 5, "", today="2026-11-20")
    with pytest.raises(ReleaseRefusedError, match="release 4, this board takes 5"):
        store.check_release("net", 4, "", today="2026-11-20")
    store.check_release("other", 0, "", today="2026-11-20")


@pytest.mark.parametrize(
    ("today", "message"),
    [("2027-02-01", "was valid until 2027-01-31"), ("1970-01-01", "set the clock")],
)
def test_expired_releases_are_refused(store, today, message):
    store.check_release("net", 0, "2027-01-31", today="2027-01-31")
    with pytest.raises(ReleaseRefusedError, match=message):
        store.check_release("net", 0, "2027-01-31", today=today)


def test_a_trial_that_nobody_confirms_goes_back(store, monkeypatch):
    first = add(store, b"one")
    store.activate("net", first)
    store.activate("net", add(store, b"two"), trial_s=60)
    assert store.expire_trials() == ()
    now = trials.time.monotonic()
    monkeypatch.setattr(trials.time, "monotonic", lambda: now + 61)
    assert store.expire_trials() == ("net",)
    assert store.generation("net") == first


def test_a_confirmed_trial_stays(store, monkeypatch):
    store.activate("net", add(store, b"one"), trial_s=60)
    store.mark_good("net")
    now = trials.time.monotonic()
    monkeypatch.setattr(trials.time, "monotonic", lambda: now + 61)
    assert store.expire_trials() == ()


def test_resets_during_a_trial_go_back(store, monkeypatch):
    first = add(store, b"one")
    store.activate("net", first)
    store.activate("net", add(store, b"two"), trial_s=0)
    for boot in ("b1", "b2"):
        monkeypatch.setattr(trials, "boot_id", lambda boot=boot: boot)
        assert store.expire_trials() == ()
        assert store.expire_trials() == ()
    monkeypatch.setattr(trials, "boot_id", lambda: "b3")
    assert store.expire_trials() == ("net",)
    assert store.generation("net") == first


def test_the_third_failure_on_trial_goes_back(store):
    first = add(store, b"one")
    store.activate("net", first)
    assert not store.report_failure("net", "not on trial")
    second = add(store, b"two")
    store.activate("net", second, trial_s=0)
    assert [store.report_failure("net", "watchdog") for _ in range(3)] == [False, False, True]
    assert store.generation("net") == first
    assert "failed 3 times" in store.record("net", second).reason


def test_a_watcher_sees_the_switch(store):
    first = add(store, b"one")
    store.activate("net", first)
    assert store.wait_for_switch("net", first, 0.0) == first
    second = add(store, b"two")
    seen = []
    waiter = threading.Thread(
        target=lambda: seen.append(store.wait_for_switch("net", first, 30.0, interval_s=0.01))
    )
    waiter.start()
    store.activate("net", second)
    waiter.join()
    assert seen == [second]


def test_a_reader_never_meets_a_gap(store):
    """While one process switches back and forth, `active` always gives a whole file."""
    first = add(store, b"a" * 5000)
    store.activate("net", first)
    second = add(store, b"b" * 5000)
    code = (
        "import sys; from boards.store import PlanStore\n"
        "store = PlanStore(sys.argv[1])\n"
        "for _ in range(40):\n"
        "    for one in sys.argv[2:]: store.activate('net', one)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(store.root), second, first])
    seen = set()
    while process.poll() is None:
        content = store.active("net").read_bytes()
        assert len(content) == 5000
        assert len(set(content)) == 1
        seen.add(content[:1])
    assert process.returncode == 0
    assert seen == {b"a", b"b"}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b"])
def test_hostile_names_are_refused(store, name):
    with pytest.raises(StoreError, match="is no name for a plan"):
        store.generation(name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../..", "releases/../x", "releases/zz"])
def test_a_link_that_leads_elsewhere_is_not_followed(store, target):
    folder = store.root / "plans" / "net"
    folder.mkdir(parents=True)
    os.symlink(target, folder / "current")
    assert store.generation("net") == ""


def test_damaged_records_are_named(store):
    release = add(store, b"one")
    path = store.release_folder("net", release) / "record.json"
    for content in (b"", b"{", b"[]", b'{"format": "edgeplan-release", "version": 2}'):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"record\.json"):
            store.record("net", release)


def test_a_damaged_record_heals_when_its_plan_is_deployed_again(store):
    release = add(store, b"one")
    (store.release_folder("net", release) / "record.json").write_bytes(b"{")
    assert add(store, b"one") == release
    assert store.record("net", release).state is ReleaseState.CHECKED


def test_a_damaged_record_neither_stops_other_trials_nor_the_way_back(store, monkeypatch):
    for name in ("a", "b"):
        first = add(store, b"one", name)
        store.activate(name, first)
        store.activate(name, add(store, b"two", name), trial_s=60)
    damaged = store.generation("a")
    (store.release_folder("a", damaged) / "record.json").write_bytes(b"")
    with pytest.raises(StoreError, match=r"record\.json"):
        store.expire_trials()
    now = trials.time.monotonic()
    monkeypatch.setattr(trials.time, "monotonic", lambda: now + 61)
    assert store.expire_trials() == ("b",)
    assert store.generation("b") == first
    assert store.roll_back("a", "it is damaged") == first
    assert store.generation("a") == first


@contextlib.contextmanager
def full_disk(monkeypatch):
    """No file can grow and no link can be made; what is there can be renamed and removed."""

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", no_space)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("how", ["rolled back", "trial over", "failures"])
def test_the_way_back_is_open_on_a_full_disk(store, monkeypatch, caplog, how):
    first = add(store, b"one")
    store.activate("net", first)
    second = add(store, b"two")
    store.activate("net", second, trial_s=60)
    if how == "failures":
        assert [store.report_failure("net", "smoke") for _ in range(2)] == [False, False]
    elif how == "trial over":
        monkeypatch.setattr(trials, "boot_id", lambda: "another boot")
        record = replace(store.record("net", second), trial_resets=trials.MAX_TRIAL_RESETS - 1)
        store.update("net", record)
    with full_disk(monkeypatch):
        with pytest.raises(OSError, match="File too large"):
            store.update("net", store.record("net", second))
        if how == "rolled back":
            assert store.roll_back("net", "smoke") == first
        elif how == "trial over":
            assert store.expire_trials() == ("net",)
        else:
            assert store.report_failure("net", "smoke")
    assert store.generation("net") == first
    assert store.previous("net") == ""
    assert f"release {second} is bad could not be recorded" in caplog.text
    store.activate("net", first)  # nothing half-done is in the way


def test_records_keep_all_fields(store):
    release = add(store, b"one")
    record = replace(
        store.record("net", release), notes=("slow",), built_us=1.5, expires="2027-01-01"
    )
    store.update("net", record)
    assert store.record("net", release) == record
