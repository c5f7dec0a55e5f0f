"""Agents as processes: commands, transfers that are cut off, children that go wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from support import tiny_plans
from support.agents import AgentProcess, cpu_seconds, edgeplan
from support.bad_candidates import candidates

from boards.errors import (
    CommandFailedError,
    LinkError,
    LinkLostError,
    LinkRefusedError,
)
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, fetch_file, send_to_cache
from boards.link.handshake import LinkSettings
from boards.link.key_file import read_link_key, write_link_key
from boards.link.transports.tcp import listen_tcp
from boards.store.pieces import MAX_PIECE_BYTES, cut, encode_table
from builder_host.measure.remote import BoardOptions, RemoteBoards
from runtime_edge.probe import probe_device


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with AgentProcess(tmp_path_factory.mktemp("board") / "store") as process:
        yield process


@pytest.fixture
def client(agent):
    with connect(agent.address) as made:
        yield made


def random_bytes(seed, size):
    """Bytes that do not pack."""
    return random.Random(seed).randbytes(size)


def test_identify_says_who_and_where(agent, client):
    fields = client.call("identify").fields
    assert fields["architecture"] == os.uname().machine
    assert fields["store"].endswith("store")
    assert fields["free_bytes"] > 0
    assert client.software.startswith("edgeplan")


def test_probe_is_the_fingerprint_of_the_machine(client):
    fields = client.call("probe", {"device": "cpu"}).fields
    assert fields["fields"] == dict(probe_device().fields)


def test_a_device_that_is_not_there_is_an_answer(client):
    with pytest.raises(CommandFailedError, match=r"libcuda|pycuda|GPU"):
        client.call("probe", {"device": "cuda:7"})


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        ("fly", {}, "unknown"),
        ("begin", {}, "arguments"),
        ("begin", {"sha256": "../../etc", "size": 1}, "failed"),
        ("begin", {"sha256": "0" * 64, "size": -1}, "arguments"),
        ("begin", {"sha256": "0" * 64, "size": 1}, "failed"),
        ("put", {"sha256": "0" * 64, "index": 0}, "failed"),
        ("get", {"sha256": "0" * 64, "offset": 0, "length": 1}, "failed"),
        ("get", {"sha256": ["x"], "offset": 0, "length": 1}, "failed"),
        ("probe", {"device": "cpu; rm -rf /"}, "arguments"),
        ("activate", {"name": "../x", "release": "0" * 16}, "failed"),
        ("activate", {"name": "x", "release": "../../../../etc"}, "arguments"),
        ("check", {"name": "x", "release": "0" * 16}, "failed"),
        ("run", {"name": "x", "inputs": []}, "arguments"),
        ("measure", {"sha256": "0" * 64}, "failed"),
        ("set_rate", {"baud": 9600, "stop_bits": 1}, "failed"),
        ("daemon", {"action": "reboot"}, "arguments"),
        ("logs", {"lines": -5}, "arguments"),
    ],
)
def test_wrong_requests_are_answered(client, op, fields, code):
    with pytest.raises(CommandFailedError) as caught:
        client.call(op, fields)
    assert caught.value.code == code
    client.call("ping")


def test_logs_reach_the_host(agent):
    lines = []
    with connect(agent.address, LinkOptions(log_line=lines.append)) as one:
        assert any(
            "listening" in line for line in one.call("logs", {"follow": True}).fields["lines"]
        )
        with connect(agent.address):
            end = time.monotonic() + 120
            while not any("a host is connected" in line for line in list(lines)):
                assert time.monotonic() < end, lines
                time.sleep(0.01)


def test_files_travel_once(agent):
    data = random_bytes(1, 300_000)
    with BoardLink(agent.address) as link:
        first = send_to_cache(link, data)
        assert (first.num_pieces, first.num_sent) == (5, 5)
        again = send_to_cache(link, data)
        assert again.num_sent == 0
        assert fetch_file(link, first.sha256, len(data)) == data
        changed = data[:65536] + b"x" + data[65537:]
        assert send_to_cache(link, changed).num_sent == 1


@pytest.mark.parametrize("size", [-1, 1 << 40, "7", None, True])
def test_a_board_that_names_a_monstrous_file_is_not_asked_for_it(agent, size):
    with BoardLink(agent.address) as link, pytest.raises(LinkError, match="names a file of"):
        fetch_file(link, "0" * 64, size)


def test_a_file_of_another_size_is_not_taken(agent):
    data = random_bytes(9, 100_000)
    with BoardLink(agent.address) as link:
        sha256 = send_to_cache(link, data).sha256
        for size in (1, len(data) + 1):
            with pytest.raises(LinkError, match="another hash or size"):
                fetch_file(link, sha256, size)


def test_pieces_travel_packed(agent):
    with BoardLink(agent.address) as link:
        sending = send_to_cache(link, b"edgeplan" * 30_000)
        assert sending.sent_bytes < 5_000


def test_a_wrong_piece_is_refused(agent, client):
    data = random_bytes(2, 1000)
    sha256 = hashlib.sha256(data).hexdigest()
    table = encode_table(cut(memoryview(data)))
    client.call("begin", {"sha256": sha256, "size": 1000}, table)
    for body, packed in ((b"x" * 1000, False), (data[:-1], False), (data, True), (b"", True)):
        with pytest.raises(CommandFailedError):
            client.call("put", {"sha256": sha256, "index": 0, "zlib": packed}, body)
    with pytest.raises(CommandFailedError) as caught:
        client.call("commit", {"sha256": sha256, "to": "cache"})
    assert caught.value.code == "missing"
    client.call("put", {"sha256": sha256, "index": 0, "zlib": False}, data)
    client.call("commit", {"sha256": sha256, "to": "cache"})


def test_a_packed_bomb_is_not_unpacked(agent, client):
    import zlib

    data = bytes(MAX_PIECE_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    client.call("begin", {"sha256": sha256, "size": len(data)}, encode_table(cut(memoryview(data))))
    bomb = zlib.compress(bytes(200 << 20), 9)
    with pytest.raises(CommandFailedError, match="another hash"):
        client.call("put", {"sha256": sha256, "index": 0, "zlib": True}, bomb)


class _CutAfter:
    """Counts confirmed pieces and kills the agent after some of them."""

    def __init__(self, agent, count):
        self.agent, self.count = agent, count
        self.confirmed = 0

    def __call__(self, done, total):
        self.confirmed = done
        if done == self.count:
            self.agent.kill()


def test_bad_candidates_are_results_and_the_agent_goes_on(agent, tmp_path):
    expected = {
        "good": None,
        "segfault": "SIGSEGV",
        "aborts": "SIGABRT",
        "exits": "ended with status 0",
        "loops": "did not finish within 1 s",
        "forks": "SIGSEGV",
        "babbles": None,
        "chatters": "did not finish within 1 s",
    }
    jobs = candidates(tmp_path, [*expected, "good"])
    boards = RemoteBoards(
        [agent.address], BoardOptions(candidate_s=1.0), lambda *_: None, device="cpu"
    )
    try:
        boards.prepare(flush_bytes=0, support=tiny_plans.code())
        timings = boards.measure(jobs, 1)
    finally:
        boards.close()
    assert timings[0].median_us > 0
    assert timings[-1].median_us > 0
    assert "num_cores=" in timings[0].observed
    for timing, (symbol, reason) in zip(timings, expected.items(), strict=False):
        assert (timing.median_us is None) == (reason is not None), symbol
        assert reason is None or reason in timing.error, (symbol, timing.error)
    assert agent.process.poll() is None


@pytest.mark.parametrize("device", ["cpu", ""])  # with and without a limit of its address space
def test_a_candidate_that_allocates_without_end_is_stopped(agent, tmp_path, device):
    with BoardLink(agent.address) as link:
        boards = RemoteBoards([agent.address], BoardOptions(), lambda *_: None, device="cpu")
        boards.prepare(flush_bytes=0, support=tiny_plans.code())
        data, edges = boards.bundle(candidates(tmp_path, ["allocates", "good"]), 1)
        boards.close()
        rows = {}
        sha256 = send_to_cache(link, data, edges).sha256
        link.call(
            "measure",
            {"sha256": sha256, "device": device, "memory_bytes": 512 << 20},
            notice=lambda message: rows.update({row[0]: row for row in message.fields["results"]}),
        )
    assert rows[0][1] is None
    assert ("SIGSEGV" if device else "512 MiB are allowed") in rows[0][5]
    assert rows[1][1] > 0
    assert agent.process.poll() is None


def test_measuring_can_be_cancelled(agent, client, tmp_path):
    boards = RemoteBoards([agent.address], BoardOptions(), lambda *_: None, device="cpu")
    boards.prepare(flush_bytes=0, support=tiny_plans.code())
    data, edges = boards.bundle(candidates(tmp_path, ["loops", "good"]), 1)
    boards.close()
    with BoardLink(agent.address) as link:
        sha256 = send_to_cache(link, data, edges).sha256
    running = client.start("measure", {"sha256": sha256, "device": "cpu", "candidate_s": 600})
    with pytest.raises(CommandFailedError) as caught:
        client.call("measure", {"sha256": sha256, "device": "cpu"})
    assert caught.value.code == "busy"
    assert client.call("cancel", {"call": 1}).fields["cancelled"]
    with pytest.raises(CommandFailedError) as caught:
        running.result(120)
    assert caught.value.code == "cancelled"
    client.call("ping")


def test_a_looping_candidate_ends_with_a_killed_agent(tmp_path):
    with AgentProcess(tmp_path / "store") as agent:
        boards = RemoteBoards([agent.address], BoardOptions(), lambda *_: None, device="cpu")
        boards.prepare(flush_bytes=0, support=tiny_plans.code())
        data, edges = boards.bundle(candidates(tmp_path, ["loops"]), 1)
        boards.close()
        with BoardLink(agent.address, patience_s=0) as link:
            sha256 = send_to_cache(link, data, edges).sha256
            fields = {"sha256": sha256, "device": "cpu", "candidate_s": 600}
            running = link.client.start("measure", fields)
            children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
            end = time.monotonic() + 120
            while not (pids := children.read_text().split()):
                assert time.monotonic() < end
                time.sleep(0.01)
            while cpu_seconds(int(pids[0])) < 0.5:  # it is past its start, in the loop
                assert time.monotonic() < end
                time.sleep(0.01)
            agent.kill()
            with pytest.raises(LinkLostError):
                running.result(120)
        while Path(f"/proc/{pids[0]}").exists():
            assert time.monotonic() < end
            time.sleep(0.01)


def test_an_idle_agent_sleeps(agent, client):
    client.call("ping")
    before, start = cpu_seconds(agent.process.pid), time.monotonic()
    client.call("logs", {"follow": True})
    threading.Event().wait(1.0)
    share = (cpu_seconds(agent.process.pid) - before) / (time.monotonic() - start)
    assert share < 0.1


# --- keys --------------------------------------------------------------------------------


def test_without_a_key_only_loopback_is_served():
    with pytest.raises(LinkError, match="loopback addresses only"):
        listen_tcp("0.0.0.0", 0, has_key=False)
    with pytest.raises(LinkError, match="loopback addresses only"):
        listen_tcp("", 0, has_key=False)
    listen_tcp("127.0.0.1", 0, has_key=False).close()
    listen_tcp("0.0.0.0", 0, has_key=True).close()


def test_the_command_refuses_other_addresses_without_a_key(tmp_path):
    done = edgeplan("agent", "--tcp", "0.0.0.0:0", "--store", tmp_path, check=False)
    assert done.returncode == 1
    assert "edgeplan link-key FILE" in done.stderr


def test_a_key_opens_and_its_absence_does_not(tmp_path):
    key = write_link_key(tmp_path / "key")
    with AgentProcess(tmp_path / "store", options=["--link-key", tmp_path / "key"]) as agent:
        with connect(agent.address, LinkOptions(key)) as client:
            client.call("ping")
        with pytest.raises(LinkRefusedError, match="wants a key"):
            connect(agent.address)
        with pytest.raises(LinkRefusedError, match="the key is not the board's"):
            connect(agent.address, LinkOptions(os.urandom(32)))
        with connect(agent.address, LinkOptions(read_link_key(tmp_path / "key"))) as client:
            client.call("ping")


def test_key_files_of_others_are_refused(tmp_path):
    write_link_key(tmp_path / "key")
    with pytest.raises(LinkError, match="exists"):
        write_link_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(LinkError, match="chmod 600"):
        read_link_key(tmp_path / "key")
    for number, text in enumerate((b"", b"edgeplan-link-key-1", b"\xff", b"x " + b"A" * 44)):
        path = tmp_path / f"bad{number}"
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(LinkError, match="is no link key"):
            read_link_key(path)


def test_bytes_from_nowhere_do_not_stop_the_agent(agent):
    source = random.Random(9)
    for _ in range(20):
        raw = socket.create_connection(("127.0.0.1", agent.port))
        with raw, contextlib.suppress(OSError):
            raw.sendall(source.randbytes(source.randrange(1, 200_000)))
    with connect(agent.address) as client:
        client.call("ping")


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LinkLostError, match="is the agent running there"):
        connect(f"tcp://127.0.0.1:{port}")


def test_a_socket_that_meets_itself_is_nobody(monkeypatch):
    """Asking again and again for a free port of this machine succeeds at last, with itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.connect(("127.0.0.1", port))
        assert free.getsockname() == free.getpeername()
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: free)
        with pytest.raises(LinkLostError, match="nobody listens there"):
            connect(f"tcp://127.0.0.1:{port}")


def test_somebody_else_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LinkLostError, match="no agent answered"):
            connect(f"tcp://127.0.0.1:{port}", LinkOptions(connect_timeout_s=1.0))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_payload_bytes is 1"):
        LinkSettings(max_payload_bytes=1)
    with pytest.raises(ValueError, match="window_frames is 65"):
        LinkSettings(window_frames=65)
