"""The host's end of a link: calls to a board, answered in any order, from any thread."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import secrets
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # another class before 3.11
from dataclasses import dataclass, field
from typing import Any

from boards.errors import (
    LinkError,
    LinkLostError,
    LinkProtocolError,
)
from boards.link.calls import Call, Notice, failure
from boards.link.channels import BULK, COMMANDS, LOGS
from boards.link.connection import (
    Closed,
    Connection,
    Echoed,
    Established,
    MessageReceived,
    client_connection,
)
from boards.link.handshake import LinkSettings
from boards.link.line import Line
from boards.link.messages import Message, decode_message, encode_message
from boards.link.transports.base import Transport

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 12.0
CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How links are made.

    Attributes:
        key: secret shared with the boards, None for none.
        connect_timeout_s: how long a board may take to answer the greeting.
        log_line: called with every line that a board logs.
    """

    key: bytes | None = None
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    log_line: Callable[[str], None] = field(default=lambda text: log.info("%s", text))


class BoardClient:
    """A session with one board. Make it with `connect`.

    Attributes:
        name: address, for messages.
        software: of the other end.
        num_payload_bytes: bytes of requests sent so far.
    """

    def __init__(self, transport: Transport, options: LinkOptions, *, name: str) -> None:
        """Start the handshake on a transport, which is taken over; `wait_open` waits for its end.

        Raises:
            nothing; failures come out of `wait_open` and `call`.
        """
        self.name = name
        self.software = ""
        self.num_payload_bytes = 0
        self._line = Line(transport)
        self._options = options
        settings = LinkSettings(
            software=_software(),
            max_payload_bytes=transport.payload_bytes,
            key=options.key,
        )
        self._connection: Connection = client_connection(
            secrets.randbits(32), secrets.token_bytes(16), settings, time.monotonic()
        )
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._opened: Future[None] = Future()
        self._echoes: list[bytes] = []
        self._awaited: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._is_ending = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name=f"link {name}", daemon=True)
        self._thread.start()

    def wait_open(self) -> None:
        """Wait until the board has answered.

        Raises:
            LinkLostError: it did not in time; LinkRefusedError: it refused.
        """
        try:
            self._opened.result(self._options.connect_timeout_s)
        except FutureTimeoutError:
            noise = self._line.splitter.noise + self._line.splitter.pending_text()
            self.close()
            raise LinkLostError(_no_answer(self.name, noise)) from None

    def call(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        notice: Notice | None = None,
    ) -> Message:
        """Ask the board to do something and wait for its answer.

        Args:
            op: name of the command.
            fields: its arguments.
            body: bytes that belong to it.
            timeout_s: how long to wait; a lost link is noticed before.
            notice: called, in another thread, with what the board says meanwhile.

        Raises:
            CommandFailedError: the board could not; LinkLostError: the link is gone.
        """
        future = self.start(op, fields, body, notice=notice)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            future.cancel()
            raise LinkLostError(
                f"{self.name}: no answer to '{op}' within {timeout_s:.0f} s, but the link is up; "
                "see what the board says: edgeplan boards logs --link " + self.name
            ) from None

    def start(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        notice: Notice | None = None,
        after: Call | None = None,
    ) -> Call:
        """As `call`, without waiting. Requests with a long body travel behind short ones.

        Args:
            op: name of the command.
            fields: its arguments.
            body: bytes that belong to it.
            notice: as in `call`.
            after: the last fragment of this request is not sent before that one is answered.
        """
        number = next(self._ids)
        data = encode_message({"id": number, "op": op, **(fields or {})}, body)
        call = Call(len(body), notice)

        def send() -> None:
            self._calls[number] = call
            self.num_payload_bytes += len(data)
            channel = BULK if len(body) > 1024 else COMMANDS
            outgoing = self._connection.send(channel, data, is_held=after is not None)
            call.outgoing = outgoing

            def let_go(_answered: Future[Message]) -> None:
                outgoing.is_held = False

            if after is not None:
                after.add_done_callback(let_go)

        with self._lock:
            if self._error is not None:
                call.set_exception(self._error)
                return call
            self._inbox.append(send)
        self._wake()
        return call

    def close(self) -> None:
        """Say farewell and give the line back."""
        with self._lock:
            self._is_ending = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> BoardClient:
        """The client itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    # --- for changing the rate of a serial line ------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the session has ended."""
        with self._lock:
            return self._error is not None

    def set_rate(self, baud: int, stop_bits: int) -> None:
        """Change the rate of this end. Raises LinkError when the line refuses it."""

        def switch() -> None:
            self._line.forget_pending()
            self._line.transport.set_rate(baud, stop_bits)

        self._in_thread(switch)

    def are_echoed(self, patterns: Sequence[bytes], timeout_s: float) -> bool:
        """Send patterns outside the sequence; whether all come back as they were, in order.

        Late echoes of earlier patterns do not count.
        """

        def send() -> None:
            self._echoes.clear()
            self._awaited = frozenset(patterns)
            for pattern in patterns:
                self._connection.send_test(pattern)

        self._in_thread(send)
        end = time.monotonic() + timeout_s
        while len(self._echoes) < len(patterns) and time.monotonic() < end:
            time.sleep(0.01)
        return self._echoes == list(patterns)

    def _in_thread(self, action: Callable[[], None]) -> None:
        """Run something in the link's thread and wait for it."""
        done: Future[None] = Future()

        def act() -> None:
            try:
                action()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        with self._lock:
            if self._error is not None:
                raise self._error
            self._inbox.append(act)
        self._wake()
        done.result()

    # --- the thread ----------------------------------------------------------------------

    def _wake(self) -> None:
        with self._lock:
            if self._error is not None:
                return  # the pipe is closed, and its number may be another file's
            with contextlib.suppress(BlockingIOError):  # it is awake already
                os.write(self._wake_write, b"x")

    def _run(self) -> None:
        error: Exception = LinkLostError(f"{self.name}: the link was closed")
        try:
            while not self._is_ending:
                self._step()
            self._connection.close()
            self._line.write(lambda: self._connection.next_frame(time.monotonic()))
        except LinkError as problem:
            error = problem
        except Exception as problem:
            log.exception("%s: the link's thread failed", self.name)
            error = LinkLostError(f"{self.name}: {problem}")
        finally:
            self._end(error)

    def _step(self) -> None:
        now = time.monotonic()
        while True:
            with self._lock:
                action = self._inbox.popleft() if self._inbox else None
            if action is None:
                break
            action()
        self._line.write(lambda: self._connection.next_frame(time.monotonic()))
        self._connection.tick(now)
        self._take_events()
        wait_s = max(0.0, self._connection.wake_at(time.monotonic()) - time.monotonic())
        transport = self._line.transport
        poll = select.poll()  # unlike select, it takes descriptors of any number
        poll.register(self._wake_read, select.POLLIN)
        poll.register(transport.read_fd, select.POLLIN)
        if self._line.is_blocked:
            wait_s = max(wait_s, 0.2)
            both = select.POLLOUT
            if transport.write_fd == transport.read_fd:
                both |= select.POLLIN
            poll.register(transport.write_fd, both)
        ready = {fd for fd, _ in poll.poll(math.ceil(min(wait_s, 1.0) * 1000))}
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if transport.read_fd in ready:
            for frame in self._line.frames():
                if frame.session == self._connection.session:
                    self._connection.receive(frame, time.monotonic())
            self._take_events()

    def _take_events(self) -> None:
        while (event := self._connection.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self._on_message(event)
            elif isinstance(event, Established):
                self.software = event.software
                self._opened.set_result(None)
            elif isinstance(event, Echoed):
                # a board may say any number of anything
                if event.payload in self._awaited and len(self._echoes) < len(self._awaited):
                    self._echoes.append(event.payload)
            elif isinstance(event, Closed):
                raise self._closing(event)

    def _closing(self, event: Closed) -> Exception:
        if event.error is None:
            return LinkLostError(f"{self.name}: the board's agent has ended the session")
        if isinstance(event.error, TimeoutError):
            return LinkLostError(
                f"{self.name}: {event.error}; is the cable or network still there?"
            )
        return type(event.error)(f"{self.name}: {event.error}")

    def _on_message(self, event: MessageReceived) -> None:
        message = decode_message(event.data)
        if event.channel == LOGS:
            self._options.log_line(str(message.fields.get("line", ""))[:2000])
            return
        number = message.fields.get("id")
        call = self._calls.get(number) if isinstance(number, int) else None
        if call is None:
            return  # the answer to a call that was given up
        if "notice" in message.fields:
            try:
                if call.notice is not None:
                    call.notice(message)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                del self._calls[message.fields["id"]]
                if call.set_running_or_notify_cancel():
                    call.set_exception(
                        LinkProtocolError(f"{self.name}: a notice makes no sense: {error}")
                    )
            return
        del self._calls[message.fields["id"]]
        if not call.set_running_or_notify_cancel():
            return
        if message.fields.get("ok") is True:
            call.set_result(message)
            return
        call.set_exception(failure(self.name, message.fields.get("error")))

    def _end(self, error: Exception) -> None:
        with self._lock:
            self._error = error
            actions, self._inbox = self._inbox, deque()
        for action in actions:
            action()  # their futures are failed with the others
        self._line.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        if not self._opened.done():
            self._opened.set_exception(error)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.set_running_or_notify_cancel():
                call.set_exception(error)


def _no_answer(name: str, noise: bytes) -> str:
    text = "".join(chr(c) if 32 <= c < 127 else " " for c in noise[-400:]).strip()
    heard = f"; it printed: {text[-200:]}" if text else "; it was silent"
    return (
        f"{name}: no agent answered{heard}. Start one there, e.g. on a login console: "
        "edgeplan agent --stdio (or add ?start=edgeplan%20agent%20--stdio to a serial address), "
        "and compare the rates of both ends"
    )


def _software() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"edgeplan {version('edgeplan')}"
    except PackageNotFoundError:
        return "edgeplan"
