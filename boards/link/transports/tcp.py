"""TCP: connecting and listening."""

from __future__ import annotations

import ipaddress
import socket

from boards.errors import LinkError, LinkLostError
from boards.link.transports.base import DescriptorTransport


def connect_tcp(host: str, port: int, timeout_s: float) -> DescriptorTransport:
    """Connect to an agent.

    Raises:
        LinkLostError: nobody answers.
    """
    try:
        made = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise LinkLostError(
            f"tcp://{host}:{port}: {error}; is the agent running there (edgeplan agent --tcp "
            f"{host}:{port} --link-key FILE), and does a firewall stand between?"
        ) from error
    if made.getsockname() == made.getpeername():
        # asking for a port of this machine that nobody listens on may meet the asking socket itself
        made.close()
        raise LinkLostError(
            f"tcp://{host}:{port}: nobody listens there; start the agent: edgeplan agent --tcp "
            f"{host}:{port}"
        )
    return socket_transport(made, f"tcp://{host}:{port}")


def socket_transport(made: socket.socket, name: str) -> DescriptorTransport:
    """A transport on a connected socket, which it takes over."""
    if made.family in (socket.AF_INET, socket.AF_INET6):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setblocking(False)
    descriptor = made.detach()
    return DescriptorTransport(descriptor, descriptor, name=name)


def listen_tcp(host: str, port: int, *, has_key: bool) -> socket.socket:
    """A listening socket.

    Args:
        host: address or name of this machine's end; `127.0.0.1` and the like need no key.
        port: 0 lets the system choose.
        has_key: whether hosts must prove a key.

    Raises:
        LinkError: the address is not here, is taken, or is no loopback address and there is no key.
    """
    try:
        rows = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise LinkError(f"tcp://{host}:{port}: {error}") from error
    family, kind, protocol, _, address = rows[0]
    if not has_key and not all(_is_loopback(str(row[4][0])) for row in rows):
        raise LinkError(
            f"tcp://{host}:{port}: without a key the agent listens on loopback addresses only, "
            "because whoever connects can run code; make one with 'edgeplan link-key FILE' and "
            "give it to both ends with --link-key FILE"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise LinkError(f"tcp://{host}:{port}: cannot listen: {error}") from error
    listener.setblocking(False)
    return listener


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
