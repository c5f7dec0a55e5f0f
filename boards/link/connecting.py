"""Opening links: the line that an address names, an agent on it, and the line's rate."""

from __future__ import annotations

import math
import secrets
import select
import time

from boards.errors import LinkAddressError, LinkLostError
from boards.link.address import DEFAULT_TCP_PORT, LinkAddress, parse_address
from boards.link.client import BoardClient, LinkOptions
from boards.link.frames import Frame, FrameType, encode_frame
from boards.link.rate import raise_rate
from boards.link.transports.base import Transport

BASE_BAUD = 115200
READY_LINE = b"EDGEPLAN-AGENT"
_START_WAIT_S = 20.0
_ANSWER_WAIT_S = 1.0
_LOWER_RATES = (460800, 230400)  # tried after the one that was asked for


def connect(address: str, options: LinkOptions | None = None) -> BoardClient:
    """Open a link to a board.

    Args:
        address: see `boards.link.address`.
        options: key, patience and where log lines go.

    Raises:
        LinkAddressError: no such form of address.
        LinkError: a subclass says why the board is not reached.
    """
    options = options or LinkOptions()
    parsed = parse_address(address)
    transport = open_transport(parsed, options.connect_timeout_s)
    if parsed.scheme == "serial" and parsed.options.get("start"):
        try:
            _start_agent(transport, parsed.options["start"])
        except BaseException:
            transport.close()
            raise
    client = BoardClient(transport, options, name=address)
    try:
        client.wait_open()
        if parsed.scheme == "serial":
            _raise_rate(client, parsed)
    except BaseException:
        client.close()
        raise
    return client


def open_transport(address: LinkAddress, timeout_s: float) -> Transport:
    """The line that an address names. Raises LinkError."""
    if address.scheme == "tcp":
        from boards.link.transports.tcp import connect_tcp

        return connect_tcp(address.host, address.port or DEFAULT_TCP_PORT, timeout_s)
    if address.scheme == "serial":
        from boards.link.transports.serial import SerialTransport

        return SerialTransport(address.path, address.number("base", BASE_BAUD))
    from boards.link.transports.process import (
        ProcessTransport,
        local_agent_command,
        ssh_command,
    )

    if address.scheme == "store":
        return ProcessTransport(local_agent_command(address.path), name=address.text)
    if address.scheme == "ssh":
        remote = address.options.get("command", "edgeplan agent --stdio")
        if "store" in address.options:
            import shlex

            remote += " --store " + shlex.quote(address.options["store"])
        command = ssh_command(address.host, address.port, address.user, remote)
        return ProcessTransport(command, name=address.text)
    raise LinkAddressError(f"{address.text}: no transport for '{address.scheme}'")


def _raise_rate(client: BoardClient, address: LinkAddress) -> None:
    base = address.number("base", BASE_BAUD)
    wanted = address.number("baud", base)
    stop_bits = address.number("stop", 1)
    ladder = [rate for rate in _LOWER_RATES if base < rate < wanted]
    for rate in (wanted, *ladder) if wanted > base else ():
        if raise_rate(client, rate, stop_bits, base, 1):
            return


def _start_agent(transport: Transport, command: str) -> None:
    """Type a command into a login console, unless an agent answers already."""

    def wait_for(mark: bytes, seconds: float) -> bool:
        seen = b""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(transport.read_fd, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            if poll.poll(math.ceil(left * 1000)):
                seen = (seen + transport.read())[-65536:]
                if mark in seen:
                    return True
        return False

    # an agent answers a frame of a session that it does not know with a frame, which holds zeros
    transport.write(encode_frame(Frame(FrameType.PING, secrets.randbits(32))))
    if wait_for(b"\0", _ANSWER_WAIT_S):
        return
    transport.write(b"\x03\x15\r" + command.encode() + b"\r")
    if not wait_for(READY_LINE, _START_WAIT_S):
        raise LinkLostError(
            f"{transport.name}: '{command}' was typed but no agent reported within "
            f"{_START_WAIT_S:.0f} s; log in on that console first and try the command by hand"
        )
