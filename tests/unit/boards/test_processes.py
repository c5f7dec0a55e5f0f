"""Links through the standard input and output of programs: ssh, and an agent on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys

import pytest
from support.agents import COMMAND, AgentProcess

from boards.errors import CommandFailedError, LinkLostError
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.transports.process import ssh_command

_SO_TIMESTAMPNS = 35  # Linux; the socket module has no name for it


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A program `ssh` that notes its arguments and runs the remote command here."""
    words = " ".join(f"'{word}'" for word in COMMAND)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "edgeplan").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (tmp_path / "bin" / "ssh").write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do echo "$word" >> {tmp_path}/words; remote=$word; done\n'
        'exec sh -c "$remote"\n'
    )
    for name in ("edgeplan", "ssh"):
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_ssh_starts_an_agent_and_ends_it(ssh):
    store = ssh / "a store"
    with connect(f"ssh://nvidia@board:2222?store={store}") as client:
        fields = client.call("identify").fields
        assert fields["store"] == str(store)
    words = (ssh / "words").read_text().splitlines()
    assert words[:1] == ["-T"]
    assert words[words.index("-p") :][:2] == ["-p", "2222"]
    assert words[-3:-1] == ["--", "nvidia@board"]
    with pytest.raises(ProcessLookupError):
        os.kill(fields["pid"], 0)


def test_what_ssh_complains_about_is_told(ssh):
    (ssh / "bin" / "ssh").write_text(
        "#!/bin/sh\necho 'Permission denied (publickey).' >&2; exit 255\n"
    )
    with pytest.raises(
        LinkLostError, match=r"ended with status 255: Permission denied \(publickey\)"
    ):
        connect("ssh://board")


def test_a_shell_that_greets_does_no_harm(ssh):
    (ssh / "bin" / "edgeplan").write_text(
        "#!/bin/sh\necho Welcome to Ubuntu 22.04; echo\n"
        + (ssh / "bin" / "edgeplan").read_text().partition("\n")[2]
    )
    with connect(f"ssh://board?store={ssh / 'store'}") as client:
        client.call("ping")


def test_arguments_of_ssh_without_port_and_user():
    assert ssh_command("board", None, "", "x y")[-3:] == ["--", "board", "x y"]


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    address = f"store://{tmp_path / 'file' / 'store'}"
    with connect(address) as client, pytest.raises(CommandFailedError, match="Not a directory"):
        client.call("identify")


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The socket of a service manager that started this process, with a watchdog of 0.6 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(120)
        listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        yield listener


def heard(manager):
    """What was said next, and when in seconds, by the system's clock: not when this was read."""
    text, ((level, kind, stamp),), _, _ = manager.recvmsg(100, 100)
    assert (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
    seconds, nanoseconds = struct.unpack("@ll", stamp)
    return text, seconds + nanoseconds * 1e-9


def test_a_service_manager_hears_how_the_agent_is(tmp_path, manager):
    with AgentProcess(tmp_path / "store") as agent:
        assert manager.recv(100) == b"READY=1"
        said_at = []
        for _ in range(8):
            text, at = heard(manager)
            assert text == b"WATCHDOG=1"
            said_at.append(at)
        assert said_at[-1] - said_at[0] > 0.3  # 1.4 s in all: not in every round of the loop
        with connect(agent.address) as client:
            client.call("ping")
        agent.process.send_signal(signal.SIGSTOP)  # it hangs: no sign of life, the manager acts
        manager.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            for _ in range(100):  # what it said before it hung, which may be much
                assert manager.recv(100) == b"WATCHDOG=1"
            pytest.fail("an agent that hangs feeds the watchdog")
        agent.process.send_signal(signal.SIGCONT)
        manager.settimeout(120)
        assert manager.recv(100) == b"WATCHDOG=1"
        assert agent.stop() == 0
    said = [b"WATCHDOG=1"]
    while said[-1] == b"WATCHDOG=1":
        said.append(manager.recv(100))
    assert said[-1] == b"STOPPING=1"


def test_a_service_manager_that_is_gone_does_not_end_the_agent(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with AgentProcess(tmp_path / "store") as agent:
        agent.wait_for_log("the service manager cannot be told 'READY=1'")
        with connect(agent.address) as client:
            client.call("ping")


def test_an_agent_that_cannot_start_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LinkLostError, match="ended with status 1"):
        connect(f"store://{tmp_path}", LinkOptions(connect_timeout_s=5))
