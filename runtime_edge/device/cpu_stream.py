"""Streams of work on the CPU, each a thread of its own, and events in them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime_edge.device.cpu_native import CALLBACK, CpuAbi, check_fork, num_forks, own
from runtime_edge.device.cpu_program import CpuProgram
from runtime_edge.errors import ContextBusyError, DeviceError

_log = logging.getLogger(__name__)

_PENDING_BEFORE_CLEANING = 16


class CpuEvent:
    """A point in the work of CPU streams. See `Event` in base.py."""

    def __init__(self, abi: CpuAbi) -> None:
        """An event that was not recorded yet."""
        self._abi = abi
        self.handle: int = abi.event_create()
        own(self, self.handle, "event", abi.event_destroy, abi)

    def query(self) -> bool:
        """Whether everything recorded so far has happened."""
        return bool(self._abi.event_query(self.handle))

    def synchronize(self) -> None:
        """Wait until everything recorded so far has happened."""
        self._abi.event_synchronize(self.handle)

    def time_us(self) -> float:
        """When it last happened: microseconds of the monotonic clock, 0 before the first time."""
        return float(self._abi.event_time_ns(self.handle)) / 1000


class CpuStream:
    """Work in order on a thread of its own. Any thread may enqueue. See `Stream` in base.py."""

    def __init__(self, abi: CpuAbi) -> None:
        """Start the thread."""
        self._abi = abi
        self._forks = num_forks()
        self._handle: int = abi.stream_create()
        self._pending: deque[tuple[int, Any]] = deque()
        self._lock = threading.Lock()
        self._last_ticket = 0
        # The finalizer finishes the work, so what it needs lives until then.
        self._close = own(self, self._handle, "stream", abi.stream_destroy, abi, self._pending)

    def enqueue(self, program: CpuProgram, keep: Any) -> int:
        """Enqueue one run; waits only while 256 commands are waiting already."""
        return self._push(
            self._abi.stream_try_run,
            (program.handle, program.addresses_address),
            (program, keep),
        )

    def record(self, event: CpuEvent) -> None:
        """Let the event happen when all work enqueued so far is done."""
        self._push(self._abi.stream_try_record, (event.handle,), event)

    def wait(self, event: CpuEvent) -> None:
        """Let later work wait for what the event has recorded so far (nothing: no wait)."""
        self._push(self._abi.stream_try_wait, (event.handle,), event)

    def call(self, function: Callable[[], None]) -> None:
        """Call a short function in order; it must not wait for this stream.

        It runs on the stream's thread or on one that synchronises; what it raises is logged.
        """

        def guarded(_: int | None) -> None:
            try:
                function()
            except Exception:
                _log.exception("a function called by a stream failed")

        callback = CALLBACK(guarded)
        self._push(self._abi.stream_try_call, (callback, None), callback)

    def is_done(self, ticket: int) -> bool:
        """Whether the work with this ticket has finished."""
        return not self._close.alive or self._abi.stream_completed(self._handle) >= ticket

    def wait_for(self, ticket: int) -> None:
        """Wait until the work with this ticket has finished."""
        check_fork(self._forks)
        if self._close.alive:
            self._abi.stream_synchronize(self._handle, ticket)

    def synchronize(self) -> None:
        """Wait until all work enqueued so far is done; an idle stream's work is done right here."""
        self.wait_for(self._last_ticket)
        self._drop_finished()

    def close(self) -> None:
        """Finish the work and end the thread."""
        self._close()
        self._pending.clear()

    def __enter__(self) -> CpuStream:
        """The stream itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _push(self, attempt: Callable[..., int], arguments: tuple[Any, ...], keep: Any) -> int:
        check_fork(self._forks)
        if not self._close.alive:
            raise ContextBusyError("the stream is closed; create another with create_stream()")
        if len(self._pending) >= _PENDING_BEFORE_CLEANING:
            self._drop_finished()
        while True:
            # The lock keeps tickets ascending in `pending`; nothing inside it blocks.
            with self._lock:
                ticket = attempt(self._handle, *arguments)
                if ticket > 0:
                    self._pending.append((ticket, keep))
                    self._last_ticket = ticket
                    return ticket
            if ticket < 0:
                raise DeviceError("more than 4096 bindings do not fit into a stream's queue")
            self._abi.stream_wait_space(self._handle)

    def _drop_finished(self) -> None:
        if not self._close.alive:
            return
        completed = self._abi.stream_completed(self._handle)
        dropped = []  # released outside the lock: destructors may run arbitrary code
        with self._lock:
            while self._pending and self._pending[0][0] <= completed:
                dropped.append(self._pending.popleft())
