"""Files on their way in: tables, bitmaps, room on the disk, and what is copied instead of sent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from support.tiny_plans import plan as tiny_plan

from boards.errors import StoreError
from boards.store import PlanStore, ReleaseRecord
from boards.store import incoming as incoming_module
from boards.store.incoming import Incoming
from boards.store.pieces import (
    MAX_PIECE_BYTES,
    MAX_PIECES,
    cut,
    decode_table,
    encode_table,
    plan_edges,
)
from planformat.writer import plan_bytes


def random_bytes(seed, size):
    return random.Random(seed).randbytes(size)


def begun(incoming, data, edges=()):
    """A transfer of these bytes, with its pieces."""
    pieces = cut(memoryview(data), edges)
    digest = hashlib.sha256(data).hexdigest()
    return incoming.begin(digest, len(data), encode_table(pieces)), pieces


def sent(incoming, data, edges=()):
    """The same, complete in the cache; returns how many pieces had to be sent."""
    file, pieces = begun(incoming, data, edges)
    missing = [i for i in range(len(pieces)) if not file.has(i)]
    for i in missing:
        file.put(i, data[pieces[i].offset : pieces[i].offset + pieces[i].length], 0)
    assert file.check() == 0
    incoming.to_cache(file.sha256)
    return len(missing)


def test_cutting_covers_every_byte_once():
    data = random_bytes(1, 200_000)
    pieces = cut(memoryview(data), [10, 70_000, 0, 999_999, 10])
    assert pieces[0].length == 10
    assert 70_000 in {piece.offset for piece in pieces}
    assert b"".join(data[p.offset : p.offset + p.length] for p in pieces) == data
    assert all(0 < p.length <= MAX_PIECE_BYTES for p in pieces)
    assert decode_table(encode_table(pieces), len(data)) == pieces


def test_plans_are_cut_where_their_sections_begin():
    data = plan_bytes(tiny_plan())
    edges = plan_edges(memoryview(data), "tiny")
    assert {4096, 8192} & set(edges)
    assert len(edges) >= 4


@pytest.mark.parametrize(
    ("table", "size"),
    [
        (b"", 0),
        (b"x" * 35, 1),
        (b"\0" * 36, 0),
        ((MAX_PIECE_BYTES + 1).to_bytes(4, "little") + bytes(32), MAX_PIECE_BYTES + 1),
        ((5).to_bytes(4, "little") + bytes(32), 6),
        (b"\x01\0\0\0" + bytes(32), 1 << 60),
        ((b"\x01\0\0\0" + bytes(32)) * (MAX_PIECES + 1), MAX_PIECES + 1),
    ],
)
def test_hostile_tables_make_nothing(tmp_path, table, size):
    incoming = Incoming(tmp_path)
    with pytest.raises(StoreError):
        incoming.begin("0" * 64, size, table)
    assert not list(tmp_path.rglob("part"))


def test_a_transfer_goes_on_after_a_restart(tmp_path):
    data = random_bytes(2, 5 * MAX_PIECE_BYTES)
    incoming = Incoming(tmp_path)
    file, pieces = begun(incoming, data)
    for i in (0, 3):
        file.put(i, data[pieces[i].offset : pieces[i].offset + pieces[i].length], 0)
    file.sync()
    file.put(4, data[pieces[4].offset :], 0)  # written, not confirmed
    incoming.close()
    again, _ = begun(Incoming(tmp_path), data)
    # piece 4 lies in the part file: it is found by its hash, and need not be sent
    assert [again.has(i) for i in range(5)] == [True, False, False, True, True]
    assert again.num_copied == 1
    again.close()


def test_another_table_for_the_same_file_starts_anew(tmp_path):
    data = random_bytes(3, 3 * MAX_PIECE_BYTES)
    incoming = Incoming(tmp_path)
    file, pieces = begun(incoming, data)
    file.put(0, data[: pieces[0].length], 0)
    file.sync()
    other, _ = begun(incoming, data, edges=[7])
    # the old bits count no more; the first piece is there by its own hash
    assert [other.has(i) for i in range(4)] == [True, False, False, False]
    incoming.close()


def test_pieces_of_other_files_are_copied_unless_damaged(tmp_path):
    incoming = Incoming(tmp_path)
    data = random_bytes(4, 6 * MAX_PIECE_BYTES)
    assert sent(incoming, data) == 6
    changed = data[: 5 * MAX_PIECE_BYTES] + random_bytes(5, MAX_PIECE_BYTES)
    assert sent(incoming, changed) == 1
    for path in tmp_path.glob("cache/*/content"):
        with open(path, "r+b") as file:
            file.write(b"\0" * 100)
    third = data[: 4 * MAX_PIECE_BYTES] + random_bytes(6, MAX_PIECE_BYTES)
    assert sent(incoming, third) == 2
    incoming.close()


def test_pieces_of_stored_plans_are_copied(tmp_path):
    store, incoming = PlanStore(tmp_path), Incoming(tmp_path)
    data = random_bytes(7, 4 * MAX_PIECE_BYTES)
    file, pieces = begun(incoming, data)
    for i, piece in enumerate(pieces):
        file.put(i, data[piece.offset : piece.offset + piece.length], 0)
    assert file.check() == 0
    record = ReleaseRecord(file.sha256[:16], file.sha256, len(data))
    store.add("net", file.part_path, record, file.table)
    incoming.finish(file.sha256)
    assert not list((tmp_path / "incoming").iterdir())
    assert sent(incoming, data + b"more") == 1
    incoming.close()


def test_a_file_with_the_right_pieces_and_another_name_is_refused(tmp_path):
    incoming = Incoming(tmp_path)
    data = random_bytes(8, 1000)
    file = incoming.begin("a" * 64, 1000, encode_table(cut(memoryview(data))))
    file.put(0, data, 0)
    with pytest.raises(StoreError, match="belongs to another file"):
        file.check()
    incoming.close()


def test_pieces_that_did_not_reach_the_disk_are_wanted_again(tmp_path, monkeypatch):
    """After a failed synchronisation the next one may succeed without having written anything."""
    data = random_bytes(9, 2 * MAX_PIECE_BYTES)
    incoming = Incoming(tmp_path)
    file, pieces = begun(incoming, data)
    file.put(0, data[: pieces[0].length], 0)
    real = os.fdatasync

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    monkeypatch.setattr(os, "fdatasync", real)
    file.sync()
    assert not file.has(0)
    file.put(0, data[: pieces[0].length], 0)
    file.sync()
    assert file.has(0)
    incoming.close()


def test_counts_of_what_came_outlive_the_process(tmp_path):
    data = random_bytes(10, 3 * MAX_PIECE_BYTES)
    incoming = Incoming(tmp_path)
    file, pieces = begun(incoming, data)
    file.put(0, data[: pieces[0].length], 1000)
    file.put(0, data[: pieces[0].length], 1000)
    file.sync()
    incoming.close()
    again, _ = begun(Incoming(tmp_path), data)
    assert (again.num_received, again.received_bytes) == (2, 2000)
    again.close()


def test_a_transfer_that_another_one_ended_takes_nothing(tmp_path):
    data = random_bytes(11, 1000)
    incoming = Incoming(tmp_path)
    first, _ = begun(incoming, data)
    second, _ = begun(incoming, data)
    with pytest.raises(StoreError, match="was ended; begin it again"):
        first.put(0, data, 0)
    with pytest.raises(StoreError, match="was ended; begin it again"):
        first.check()
    second.put(0, data, 0)
    assert second.check() == 0
    incoming.close()


def test_nothing_is_taken_during_a_check(tmp_path):
    data = random_bytes(12, 1000)
    incoming = Incoming(tmp_path)
    file, _ = begun(incoming, data)
    assert not incoming.is_checking(file.sha256)
    file.begin_check()
    assert incoming.is_checking(file.sha256)
    with pytest.raises(StoreError, match="is being checked"):
        file.put(0, data, 0)
    file.end_check()
    file.put(0, data, 0)
    incoming.close()


def test_transfers_whose_hosts_went_away_make_room_too(tmp_path):
    """An agent that runs for months keeps neither their descriptors nor their disk space."""
    incoming = Incoming(tmp_path)
    files = [begun(incoming, random_bytes(number, 1000))[0] for number in range(12)]
    kept = {path.name for path in (tmp_path / "incoming").iterdir()}
    assert kept == {file.sha256 for file in files[-incoming_module.MAX_INCOMING :]}
    assert num_open_below(tmp_path) == 2 * incoming_module.MAX_INCOMING
    assert {file.sha256 for file in incoming.transfers()} == kept
    incoming.close()
    assert num_open_below(tmp_path) == 0


def num_open_below(folder):
    """Files of a folder that this process has open; others may come and go."""
    return sum(
        os.path.realpath(f"/proc/self/fd/{number}").startswith(f"{folder}/")
        for number in os.listdir("/proc/self/fd")
    )


def test_a_transfer_that_ends_while_room_is_made_for_another(tmp_path, monkeypatch):
    """Its folder may go between the look into the folder above and the look at it."""
    incoming = Incoming(tmp_path)
    real = Path.iterdir
    gone = tmp_path / "incoming" / ("f" * 64)
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*real(folder), gone])
    file, _ = begun(incoming, random_bytes(1, 1000))
    assert incoming.transfers() == (file,)
    incoming.close()


def test_results_are_bounded_like_the_rest_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(incoming_module, "MAX_CACHE_BYTES", 2500)
    incoming = Incoming(tmp_path)
    for number in range(5):
        data = random_bytes(number, 1000)
        path = incoming.new_result()
        path.write_bytes(data)
        assert incoming.keep_result(path) == (hashlib.sha256(data).hexdigest(), 1000)
        os.utime(tmp_path / "cache" / hashlib.sha256(data).hexdigest(), (number, number))
    assert len(list((tmp_path / "cache").iterdir())) == 2


OTHER_AGENT = """
import sys
from pathlib import Path
from boards.store.incoming import Incoming
from boards.store.pieces import cut, encode_table
import hashlib
incoming = Incoming(Path(sys.argv[1]))
path = incoming.new_result()
path.write_bytes(b"running")
data = b"another transfer"
incoming.begin(hashlib.sha256(data).hexdigest(), len(data), encode_table(cut(memoryview(data))))
print(path, flush=True)
sys.stdin.read()
print(*incoming.keep_result(path), flush=True)
incoming.close()
"""


@contextlib.contextmanager
def other_agent(root):
    """A process with a running result and a transfer; gives it and the path of the result."""
    command = [sys.executable, "-c", OTHER_AGENT, root]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_results_of_an_agent_that_was_killed_go(tmp_path):
    with other_agent(tmp_path) as (process, path):
        assert path.read_bytes() == b"running"
        process.kill()
        process.wait()
    assert path.exists()
    Incoming(tmp_path)
    assert not list((tmp_path / "results").iterdir())


def test_a_second_agent_leaves_results_and_transfers_of_the_first_alone(tmp_path):
    with other_agent(tmp_path) as (process, _):
        (transfer,) = (tmp_path / "incoming").iterdir()
        os.utime(transfer, (0, 0))  # the first that would have to make room
        second = Incoming(tmp_path)
        own = second.new_result()
        own.write_bytes(b"of the second")
        for number in range(2 * incoming_module.MAX_INCOMING):
            begun(second, random_bytes(number, 1000))
        assert (transfer / "part").exists()
        assert len(list((tmp_path / "incoming").iterdir())) == 1 + incoming_module.MAX_INCOMING
        second.close()
        assert not own.exists()
        answer, _ = process.communicate("")
        assert answer.split() == [hashlib.sha256(b"running").hexdigest(), "7"]
        assert process.returncode == 0
    begun(Incoming(tmp_path), random_bytes(99, 1000))
    assert not transfer.exists()  # nobody is at it any more


def test_resting_transfers_make_room_for_new_ones(tmp_path):
    for number in range(8):
        incoming = Incoming(tmp_path)
        file, _ = begun(incoming, random_bytes(number, 1000))
        os.utime(tmp_path / "incoming" / file.sha256, (number, number))
        incoming.close()
    assert len(list((tmp_path / "incoming").iterdir())) == incoming_module.MAX_INCOMING


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(incoming_module, "MAX_CACHE_BYTES", 2500)
    incoming = Incoming(tmp_path)
    for number in range(5):
        data = random_bytes(number, 1000)
        sent(incoming, data)
        os.utime(tmp_path / "cache" / hashlib.sha256(data).hexdigest(), (number, number))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    incoming.cached(hashlib.sha256(random_bytes(4, 1000)).hexdigest())
    incoming.close()


def test_a_full_disk_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, 20 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="does not fit beside a reserve"):
        begun(Incoming(tmp_path), random_bytes(1, 5 << 20))
    assert not list(tmp_path.rglob("part"))
