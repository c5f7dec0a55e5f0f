"""The agent's loop: lines, listeners, child processes and time, all in one thread."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from boards.agent.child import Child
from boards.agent.config import AgentConfig
from boards.agent.handlers import HANDLERS
from boards.agent.request import Host, Request
from boards.errors import (
    BoardError,
    CommandFailedError,
    LinkLostError,
    LinkProtocolError,
)
from boards.link.channels import LOGS
from boards.link.connection import Closed, Established, MessageReceived
from boards.link.handshake import LinkSettings
from boards.link.messages import decode_message
from boards.link.server_line import ServerLine
from boards.link.transports.base import Transport
from boards.link.transports.tcp import socket_transport
from boards.store.incoming import Incoming
from boards.store.incoming_file import IncomingFile
from boards.store.plan_store import PlanStore
from planformat.errors import PlanError

log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_HOSTS = 16
MAX_LOG_LINES = 1000
MAX_UNSENT_BYTES = 8 << 20  # answers that a host does not read; then its requests wait
_GREETING_S = 20.0  # whoever connects and has no session for so long makes room for others
_CHILD_LOOK_S = 0.2
_TRIAL_LOOK_S = 1.0


class _LogToHosts(logging.Handler):
    def __init__(self, lines: collections.deque[str], send: Callable[[str], None]) -> None:
        super().__init__()
        self._lines = lines
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)[:2000]
        self._lines.append(line)
        self._send(line)


class Agent:
    """Serves any number of lines. Use `add_transport`, `add_listener`, then `run`.

    Attributes:
        config: options; store: plans; incoming: files on their way in.
        log_lines: the last lines that it logged.
        started_at: monotonic time of the start.
        is_abandoned: it ended because every line was lost, e.g. an adapter was unplugged.
    """

    def __init__(self, config: AgentConfig) -> None:
        """Make an agent; nothing is opened yet."""
        self.config = config
        self.store = PlanStore(config.store)
        self.incoming = Incoming(self.store.root)
        self.log_lines: collections.deque[str] = collections.deque(maxlen=MAX_LOG_LINES)
        self.started_at = time.monotonic()
        self.is_abandoned = False
        self._selector = selectors.DefaultSelector()
        self._hosts: list[Host] = []
        self._listeners: list[socket.socket] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._aside: collections.deque[Callable[[], None]] = collections.deque()
        self._unsynced: list[tuple[Request, IncomingFile]] = []
        self._is_ending = False
        self._heard_at = time.monotonic()
        self._had_host = False
        self._look_at = 0.0
        self._trial_at = 0.0
        self._trial_problem = ""
        self._wake_lock = threading.RLock()  # a signal's handler may hold it already
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._log_handler = _LogToHosts(self.log_lines, self._send_log)
        self._log_handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logging.getLogger("boards").addHandler(self._log_handler)

    @property
    def is_measuring(self) -> bool:
        """Whether candidates are being timed for anybody."""
        return self.num_children > 0

    @property
    def num_children(self) -> int:
        """Child processes at work."""
        return sum(len(host.children) for host in self._hosts)

    def settings(self, transport: Transport) -> LinkSettings:
        """What this agent offers on a line."""
        return LinkSettings(
            software=self.config.software,
            max_payload_bytes=transport.payload_bytes,
            key=self.config.key,
        )

    def add_transport(
        self, transport: Transport, *, base_rate: tuple[int, int] | None = None
    ) -> None:
        """Serve a line, which is taken over; base_rate: of a serial one."""
        now = time.monotonic()
        line = ServerLine(transport, self.settings(transport), now, base_rate=base_rate)
        host = Host(line, transport.name)
        self._hosts.append(host)
        self._selector.register(transport.read_fd, selectors.EVENT_READ, host)
        log.info("serving %s", transport.name)

    def add_listener(self, listener: socket.socket) -> None:
        """Serve whoever connects to a listening socket, which is taken over."""
        self._listeners.append(listener)
        self._selector.register(listener, selectors.EVENT_READ, listener)
        log.info("listening on %s port %d", *listener.getsockname()[:2])

    def stop(self) -> None:
        """Let `run` return. May be called from a signal handler or another thread."""
        with self._wake_lock:
            self._is_ending = True
            if self._wake_write >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._wake_write, b"x")

    def run(self) -> None:
        """Serve until `stop` is called, or the only host has gone if the config says so."""
        try:
            while not self._is_ending:
                self._step()
        finally:
            self._close()

    def aside(self, request: Request, work: Callable[[], _T], finish: Callable[[_T], None]) -> None:
        """Do something that takes long in another thread, then finish it in this one."""

        def ended(future: Future[_T]) -> None:
            def take() -> None:
                self.attempt(request, lambda: finish(future.result()))

            self._aside.append(take)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

        self._thread.submit(work).add_done_callback(ended)

    def when_synced(self, request: Request, file: IncomingFile) -> None:
        """Answer after the pieces of a file taken so far have reached the disk."""
        self._unsynced.append((request, file))

    def watch_child(self, child: Child) -> None:
        """Wait for a child's answers."""
        self._selector.register(child.fd, selectors.EVENT_READ, child)

    def forget_child(self, host: Host, number: int) -> None:
        """A child has ended."""
        child = host.children.pop(number, None)
        if child is not None:
            self._unregister(child.fd)

    # --- one round -----------------------------------------------------------------------

    def _step(self) -> None:
        now = time.monotonic()
        self._write_all(now)
        alive_s = self.config.alive()
        wake = now + (1.0 if alive_s is None else min(1.0, alive_s))
        for host in self._hosts:
            wake = min(wake, host.line.wake_at(now) if not self._is_blocked(host) else wake)
        if any(host.children for host in self._hosts):
            wake = min(wake, now + _CHILD_LOOK_S)
        for key, _ in self._selector.select(max(0.0, wake - now)):
            self._on_ready(key.data)
        while self._aside:
            self._aside.popleft()()
        self._sync()
        now = time.monotonic()
        for host in list(self._hosts):
            self._tick(host, now)
        if now >= self._look_at:
            self._look_at = now + _CHILD_LOOK_S
            for host in self._hosts:
                for child in list(host.children.values()):
                    child.tick(now)
        if now >= self._trial_at:
            self._trial_at = now + _TRIAL_LOOK_S
            self._end_trials()
        if self.config.ends_with_session:
            if any(host.line.is_open for host in self._hosts):
                self._had_host, self._heard_at = True, now
            elif self._had_host or not self._hosts or now > self._heard_at + self.config.idle_s:
                self._is_ending = True
        elif not self._hosts and not self._listeners:
            log.error("no line is left to serve")
            self.is_abandoned = self._is_ending = True

    def _on_ready(self, data: Any) -> None:
        if data is None:
            os.read(self._wake_read, 4096)
        elif isinstance(data, Child):
            data.receive()
        elif isinstance(data, Host):
            self._receive(data)
        else:
            self._accept(data)

    def _accept(self, listener: socket.socket) -> None:
        try:
            made, address = listener.accept()
        except OSError as error:
            log.warning("a connection failed: %s", error)
            return
        if len(self._hosts) >= MAX_HOSTS:
            made.close()
            log.warning("%s: refused, %d hosts are connected", address[0], MAX_HOSTS)
            return
        self.add_transport(socket_transport(made, f"tcp {address[0]}:{address[1]}"))
        self._hosts[-1].greet_by = time.monotonic() + _GREETING_S

    def _receive(self, host: Host) -> None:
        if host not in self._hosts:
            return
        try:
            host.line.receive(time.monotonic())
        except LinkLostError as error:
            self._drop(host, str(error))
            return
        self._take_events(host)

    def _tick(self, host: Host, now: float) -> None:
        try:
            host.line.tick(now)
        except BoardError as error:
            self._drop(host, str(error))
            return
        self._take_events(host)
        if host.greet_by is None:
            return
        if host.line.is_open:
            host.greet_by = now + _GREETING_S
        elif now > host.greet_by:
            self._drop(host, f"no session for {_GREETING_S:.0f} s")

    def _take_events(self, host: Host) -> None:
        while host.line.unsent_bytes < MAX_UNSENT_BYTES:
            event = host.line.next_event()
            if event is None:
                return
            if isinstance(event, Established):
                # the session before, if there was one, was replaced
                self._end_session(host)
                log.info("%s: a host is connected: %s", host.name, event.software)
            elif isinstance(event, MessageReceived):
                self._on_message(host, event)
            elif isinstance(event, Closed):
                log.info("%s: the host has gone: %s", host.name, event.error or "it said farewell")
                self._end_session(host)

    def _on_message(self, host: Host, event: MessageReceived) -> None:
        try:
            message = decode_message(event.data)
            number, op = message.fields.get("id"), message.fields.get("op")
            if type(number) is not int or not isinstance(op, str):
                raise LinkProtocolError("a request needs a number 'id' and a text 'op'")
        except LinkProtocolError as error:
            log.warning("%s: %s", host.name, error)
            return
        request = Request(self, host, number, message.fields, message.body)
        handler = HANDLERS.get(op)
        if handler is None:
            request.fail(f"unknown command '{op[:40]}'; this is {self.config.software}", "unknown")
            return
        self.attempt(request, lambda: handler(request))

    def attempt(self, request: Request, action: Callable[[], None]) -> None:
        """Do something for a request; what goes wrong becomes its answer."""
        op = request.fields["op"]
        try:
            action()
        except CommandFailedError as error:
            request.fail(str(error), error.code)
        except (BoardError, PlanError, OSError) as error:
            request.fail(str(error))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            request.fail(f"the arguments of '{op}' are wrong: {error!r}", "arguments")
        except Exception as error:
            # one host's request must not end the service of the others
            log.exception("'%s' failed", op)
            request.fail(f"'{op}' failed on the board: {error!r}; see its log", "defect")

    def _sync(self) -> None:
        """Group commit: one synchronisation for all pieces of this round, then the answers."""
        waiting, self._unsynced = self._unsynced, []
        problems: dict[IncomingFile, BoardError | OSError] = {}
        for file in dict.fromkeys(file for _, file in waiting):
            try:
                file.sync()
            except (BoardError, OSError) as error:
                log.warning("pieces of %s did not reach the disk: %s", file.sha256[:16], error)
                problems[file] = error
        for request, file in waiting:
            if file in problems:
                request.fail(f"the piece did not reach the board's disk: {problems[file]}")
            else:
                request.reply()

    def _write_all(self, now: float) -> None:
        for host in list(self._hosts):
            try:
                host.line.write(now)
            except LinkLostError as error:
                self._drop(host, str(error))
                continue
            self._want_write(host)

    def _want_write(self, host: Host) -> None:
        transport = host.line.line.transport
        is_blocked = host.line.line.is_blocked
        if transport.read_fd == transport.write_fd:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_blocked else 0)
            if self._selector.get_key(transport.read_fd).events != events:
                self._selector.modify(transport.read_fd, events, host)
        elif is_blocked and transport.write_fd not in self._selector.get_map():
            self._selector.register(transport.write_fd, selectors.EVENT_WRITE, host)
        elif not is_blocked:
            self._unregister(transport.write_fd)

    @staticmethod
    def _is_blocked(host: Host) -> bool:
        return host.line.line.is_blocked

    def _drop(self, host: Host, reason: str) -> None:
        log.info("%s: %s", host.name, reason)
        self._end_session(host)
        self._hosts.remove(host)
        transport = host.line.line.transport
        for descriptor in {transport.read_fd, transport.write_fd}:
            self._unregister(descriptor)
        host.line.close(time.monotonic())

    def _end_session(self, host: Host) -> None:
        host.follows_logs = False
        children, host.children = host.children, {}
        for child in children.values():
            self._unregister(child.fd)
            child.close()

    def _unregister(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def _end_trials(self) -> None:
        problem = ""
        try:
            for name in self.store.expire_trials():
                log.warning("'%s': the trial failed, the release before is active again", name)
        except (BoardError, OSError) as error:
            problem = str(error)
        if problem and problem != self._trial_problem:  # it is looked at every second, said once
            log.warning("trials cannot be looked at: %s", problem)
        self._trial_problem = problem

    def _send_log(self, line: str) -> None:
        for host in self._hosts:
            if host.follows_logs:
                host.line.send(LOGS, {"line": line})

    def _close(self) -> None:
        logging.getLogger("boards").removeHandler(self._log_handler)
        self._thread.shutdown()
        for host in list(self._hosts):
            self._drop(host, "the agent ends")
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self.incoming.close()
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1  # `stop` must not write to what gets this number next
