"""Listeners and what their connections share: limits, memory of bodies, the clock of time-outs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.config import ServeConfig, split_address
from runtime_edge.serve.errors import ConfigError
from runtime_edge.serve.http_connection import HttpConnection
from runtime_edge.serve.known import Known

if TYPE_CHECKING:
    import ssl

    from runtime_edge.serve.http_messages import Application
    from runtime_edge.serve.http_parser import Head

_SWEEP_S = 0.25
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times that a connection may take, in seconds; see `ServeConfig`."""

    head_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    write_timeout_s: float


class HttpServer:
    """One application on one or more listeners.

    Attributes:
        application: answers requests.
        limits: times; max_connections: at once.
        max_discard_bytes: bodies of refused requests up to this size are read and thrown away, so
            that the connection stays usable.
        bodies: memory of bodies; heads: parsed before.
        discarded: where thrown-away bytes go.
        is_open: false once the server is closing.
    """

    def __init__(self, application: Application, config: ServeConfig, bodies: BodyPool) -> None:
        """A server that does not listen yet. Belongs to the running event loop."""
        self.application = application
        self.limits = ConnectionLimits(
            config.head_timeout_s,
            config.body_timeout_s,
            config.idle_timeout_s,
            config.write_timeout_s,
        )
        self.max_connections = config.max_connections
        self.max_discard_bytes = config.max_body_bytes
        self.bodies = bodies
        self.heads: Known[Head] = Known()
        self.discarded = memoryview(bytearray(256 << 10))
        self.is_open = True
        self.loop = asyncio.get_running_loop()
        self.num_turned_away = 0
        self._connections: set[HttpConnection] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._unix_path = ""
        self._date = ("", 0)
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)

    @property
    def num_connections(self) -> int:
        """Open now."""
        return len(self._connections)

    async def listen_tcp(
        self, address: str, option: str, tls: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listen on `HOST:PORT`; returns the address with the port that the system chose.

        Raises:
            ConfigError: the address is taken or does not exist.
        """
        host, port = split_address(address, option)
        try:
            server = await self.loop.create_server(
                lambda: HttpConnection(self),
                host,
                port,
                ssl=tls,
                backlog=_BACKLOG,
                reuse_address=True,
                ssl_handshake_timeout=self.limits.head_timeout_s if tls else None,
            )
        except OSError as error:
            raise ConfigError(f"{option} = '{address}': cannot listen there: {error}") from error
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket; a socket that nobody listens on any more is replaced.

        Raises:
            ConfigError: another process listens there, or the path is not usable.
        """
        _remove_stale_socket(path)
        try:
            server = await self.loop.create_unix_server(
                lambda: HttpConnection(self, is_unix=True), path, backlog=_BACKLOG
            )
            os.chmod(path, 0o660)  # its group may connect: that is who may use the daemon
        except OSError as error:
            raise ConfigError(f"unix = '{path}': cannot listen there: {error}") from error
        self._unix_path = path
        self._servers.append(server)

    def add(self, connection: HttpConnection) -> bool:
        """Count a new connection; an idle one makes room for it, else it is turned away."""
        if len(self._connections) >= self.max_connections:
            idle = [c for c in self._connections if c.is_idle]
            if not idle:
                self.num_turned_away += 1
                return False
            oldest = min(idle, key=lambda c: c.expires_s or 0.0)
            self._connections.discard(oldest)
            oldest.close()
        self._connections.add(connection)
        return True

    def remove(self, connection: HttpConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def date(self) -> str:
        """The time as HTTP writes it."""
        now = int(time.time())
        if now != self._date[1]:
            self._date = (formatdate(now, usegmt=True), now)
        return self._date[0]

    def stop_accepting(self) -> None:
        """Close the listeners and idle connections; requests under way go on."""
        self.is_open = False
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close_if_idle()

    def close(self) -> None:
        """Close everything."""
        self.stop_accepting()
        self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
        if self._unix_path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unix_path)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.expires_s is not None and connection.expires_s <= now:
                connection.expire()
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)


def _remove_stale_socket(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"unix = '{path}': the path exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigError(f"unix = '{path}': another process listens there")
