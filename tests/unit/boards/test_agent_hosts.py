"""What hosts and disks do to an agent that runs in this process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import random
import socket
import threading

import pytest
from support.tiny_plans import plan as tiny_plan

from boards.agent import agent as agent_module
from boards.agent.agent import Agent
from boards.agent.config import AgentConfig
from boards.errors import CommandFailedError
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, send_to_cache
from boards.link.transports.tcp import listen_tcp
from boards.store.incoming import Incoming
from boards.store.incoming_file import IncomingFile
from planformat.writer import plan_bytes


@contextlib.contextmanager
def served(store):
    """Port of an agent that serves in a thread."""
    agent = Agent(AgentConfig(str(store)))
    listener = listen_tcp("127.0.0.1", 0, has_key=False)
    port = listener.getsockname()[1]
    agent.add_listener(listener)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        yield port
        assert thread.is_alive(), "the agent has ended"
    finally:
        agent.stop()
        thread.join(60)
        assert not thread.is_alive()
        agent.stop()  # once more does no harm


def test_who_connects_and_says_nothing_makes_room(tmp_path, monkeypatch):
    """Silent connections cannot keep hosts out; a host with a session stays."""
    monkeypatch.setattr(agent_module, "MAX_HOSTS", 3)
    with served(tmp_path) as port, connect(f"tcp://127.0.0.1:{port}") as client:
        patient_s = agent_module._GREETING_S
        monkeypatch.setattr(agent_module, "_GREETING_S", 1.0)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        for one in silent:
            with one:
                one.settimeout(60)
                assert one.recv(1) == b""  # the agent closed it
        monkeypatch.setattr(agent_module, "_GREETING_S", patient_s)  # who is slow only, stays
        client.call("ping")
        with connect(f"tcp://127.0.0.1:{port}") as other:
            other.call("ping")


def test_a_disk_that_fails_is_an_answer(tmp_path, monkeypatch):
    """The host is told, the agent goes on, and the pieces are wanted again."""
    real = IncomingFile.sync
    failures = [OSError(errno.EIO, "Input/output error")]

    def sync(self):
        if self._unsynced and failures:
            raise failures.pop()
        real(self)

    data = random.Random(1).randbytes(100_000)
    with served(tmp_path) as port, BoardLink(f"tcp://127.0.0.1:{port}") as link:
        monkeypatch.setattr(IncomingFile, "sync", sync)
        with pytest.raises(CommandFailedError, match=r"did not reach the board's disk: .*Input"):
            send_to_cache(link, data)
        assert not failures
        sending = send_to_cache(link, data)
        assert sending.num_pieces == 2


def test_a_result_that_cannot_be_kept_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(self, path):
        assert path.exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Incoming, "keep_result", fail)
    with served(tmp_path) as port, BoardLink(f"tcp://127.0.0.1:{port}") as link:
        plan = send_to_cache(link, plan_bytes(tiny_plan()))
        fields = {"plan": plan.sha256, "inputs": {}, "canary_seed": 1, "time": False}
        with pytest.raises(CommandFailedError, match="No space left"):
            link.client.call("run", fields)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [plan.sha256]
        assert not list((tmp_path / "results").glob("*/*"))


def test_a_file_that_is_being_checked_is_waited_for(tmp_path, monkeypatch):
    """A host that comes back during the check of what it sent neither disturbs it nor fails."""
    data = random.Random(2).randbytes(100_000)
    may_check, is_checking = threading.Event(), threading.Event()
    real = IncomingFile.check

    def check(self):
        is_checking.set()
        assert may_check.wait(60)
        return real(self)

    monkeypatch.setattr(IncomingFile, "check", check)
    with served(tmp_path) as port:
        address = f"tcp://127.0.0.1:{port}"
        sent = []

        def send():
            with BoardLink(address) as link:
                sent.append(send_to_cache(link, data))

        first = threading.Thread(target=send)
        first.start()
        assert is_checking.wait(60)
        with BoardLink(address) as link:
            for op in ("begin", "commit"):
                fields = {"sha256": sha256_of(data), "size": len(data), "to": "cache"}
                with pytest.raises(CommandFailedError) as caught:
                    link.client.call(op, fields)
                assert caught.value.code == "busy"
            second = threading.Thread(target=send)
            second.start()
            may_check.set()
            first.join(60)
            second.join(60)
            assert sorted(one.num_sent for one in sent) == [0, 2]


def sha256_of(data):
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()
