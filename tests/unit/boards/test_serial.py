"""Serial lines on real pseudo-terminals: rates, fall-back, a login console."""

from __future__ import annotations

import os
import random
import subprocess
import termios
import threading
import time

import pytest
from support.agents import COMMAND, AgentProcess
from support.uart import Cable

from boards.errors import LinkAddressError, LinkLostError
from boards.link.address import parse_address
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, fetch_file, send_to_cache

pytest.importorskip("serial", reason="pyserial is not installed")


def serving(cable, folder):
    """An agent on the far port."""
    return AgentProcess(folder / "store", options=["--serial", cable.far], lines="--serial")


def test_the_rate_is_raised_and_files_travel(tmp_path):
    data = random.Random(1).randbytes(500_000)
    with Cable() as cable, serving(cable, tmp_path):
        with BoardLink(f"serial://{cable.near}?baud=921600") as link:
            sending = send_to_cache(link, data)
            assert cable.rate(0) == cable.rate(1) == 921600
            assert fetch_file(link, sending.sha256, len(data)) == data
        # the agent hears nothing for a while and goes back; the next host finds it
        with connect(f"serial://{cable.near}") as client:
            client.call("ping")
            assert cable.rate(0) == cable.rate(1) == 115200


def test_a_rate_that_does_not_work_is_given_up(tmp_path):
    with (
        Cable(works_up_to=300_000) as cable,
        serving(cable, tmp_path),
        connect(f"serial://{cable.near}?baud=460800") as client,
    ):
        assert cable.rate(0) == cable.rate(1) == 230400
        assert (460800, 460800) in cable.seen_rates
        client.call("ping")


def test_an_end_that_changes_its_rate_late_does_not_cost_the_rate(tmp_path):
    """On a busy machine: the first attempt to hear the board at the new rate is in vain."""
    with Cable() as cable, serving(cable, tmp_path):
        cable.num_late = 1
        with connect(f"serial://{cable.near}?baud=921600") as client:
            assert cable.rate(0) == cable.rate(1) == 921600
            client.call("ping")


def test_a_bad_cable_delivers_every_byte(tmp_path):
    data = random.Random(4).randbytes(600_000)
    with (
        Cable() as cable,
        serving(cable, tmp_path),
        BoardLink(f"serial://{cable.near}") as link,
    ):
        cable.loss = 0.05
        sending = send_to_cache(link, data)
        assert fetch_file(link, sending.sha256, len(data)) == data
        assert link.client._connection.send_window.num_resent > 0


def test_what_a_kernel_prints_between_frames_does_no_harm(tmp_path):
    data = random.Random(2).randbytes(200_000)
    with (
        Cable() as cable,
        serving(cable, tmp_path),
        BoardLink(f"serial://{cable.near}") as link,
    ):

        def disturb(done, total):
            cable.write_far(b"[ 12.345] usb 1-1: new device\r\n")

        sending = send_to_cache(link, data, progress=disturb)
        assert fetch_file(link, sending.sha256, len(data)) == data


def test_nobody_at_the_other_end_is_told_with_what_was_heard():
    with Cable() as cable:
        is_over = threading.Event()

        def prompt():
            """Again and again: opening a port drops what was there before."""
            while not is_over.wait(0.1):
                cable.write_far(b"jetson login: ")

        printer = threading.Thread(target=prompt)
        printer.start()
        try:
            with pytest.raises(LinkLostError, match=r"it printed: .*jetson login:"):
                connect(f"serial://{cable.near}", LinkOptions(connect_timeout_s=1.5))
        finally:
            is_over.set()
            printer.join()


def test_a_port_that_is_in_use_is_named(tmp_path):
    with Cable() as cable, serving(cable, tmp_path):
        address = f"serial://{cable.near}"
        with connect(address), pytest.raises(Exception, match="is another program using it"):
            connect(address)


def console(cable):
    """A shell on the far port, as after a login."""
    slave = os.open(cable.far, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(slave)
    attributes[0] |= termios.ICRNL
    attributes[1] |= termios.OPOST | termios.ONLCR
    attributes[4] = attributes[5] = termios.B115200
    attributes[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    shell = subprocess.Popen(
        ["/bin/sh", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "PS1": "$ ", "ENV": ""},
    )
    return shell, slave, termios.tcgetattr(slave)


def typed(port, line, mark, timeout_s=60, again_s=2):
    """What a console answers to a line, up to a mark; typed again while there is no answer.

    A person does so too: what is typed before the agent has given the terminal back is flushed,
    and that it has ended may have been read by the host that was still connected.
    """
    seen, end, next_s = b"", time.monotonic() + timeout_s, 0.0
    while mark not in seen:
        assert time.monotonic() < end, seen
        if time.monotonic() >= next_s:
            os.write(port, line)
            next_s = time.monotonic() + again_s
        try:
            seen += os.read(port, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    return seen


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_console_starts_an_agent_and_is_a_console_again(tmp_path, is_killed):
    script = tmp_path / "agent.sh"
    words = " ".join(f"'{word}'" for word in COMMAND)
    script.write_text(f"exec {words} agent --stdio --store {tmp_path}/store\n")
    with Cable() as cable:
        shell, slave, before = console(cable)
        try:
            address = f"serial://{cable.near}?start=sh%20{script}"
            with connect(address) as client:
                pid = client.call("identify").fields["pid"]
                if is_killed:
                    os.kill(pid, 9)
            port = os.open(cable.near, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                typed(port, b"\recho $((6*7))-alive\r", b"42-alive")
            finally:
                os.close(port)
            after = termios.tcgetattr(slave)
            assert after[3] & termios.ICANON
            assert after[3] & termios.ECHO
            assert after[:4] == before[:4]
        finally:
            shell.kill()
            shell.wait()
            os.close(slave)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/dev/ttyUSB0", "names no link"),
        ("http://host", "names no link"),
        ("serial://ttyUSB0", "three slashes"),
        ("serial:///dev/x?boud=1", "unknown option 'boud'"),
        ("serial:///dev/x?baud", "bad query field"),
        ("tcp://", "names no host"),
        ("tcp://host:99999", "out of range"),
        ("ssh://-oProxyCommand=x", "cannot begin with"),
        ("ssh://-x@host", "cannot begin with"),
        ("store:relative", "three slashes"),
    ],
)
def test_addresses_that_name_no_link(text, message):
    with pytest.raises(LinkAddressError, match=message):
        parse_address(text)


def test_options_that_are_no_numbers():
    with pytest.raises(LinkAddressError, match="baud is 'fast'"):
        parse_address("serial:///dev/x?baud=fast").number("baud", 1)
