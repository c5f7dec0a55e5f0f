"""Links through the standard input and output of programs: ssh, and an agent on this machine."""

from __future__ import annotations

import os
import sys

import pytest
from support.agents import COMMAND

from boards.errors import CommandFailedError, LinkLostError
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.transports.process import ssh_command


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


def test_an_agent_that_cannot_start_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LinkLostError, match="ended with status 1"):
        connect(f"store://{tmp_path}", LinkOptions(connect_timeout_s=5))
