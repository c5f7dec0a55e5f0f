"""CUDA streams and events, made here or the caller's."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime_edge.device.cuda_context import GpuContext
from runtime_edge.device.cuda_driver import (
    CAPTURE_STATUS_NONE,
    EVENT_DEFAULT,
    EVENT_DISABLE_TIMING,
    HOST_CALLBACK,
    CudaError,
)
from runtime_edge.errors import BindingError, ContextBusyError

if TYPE_CHECKING:
    from runtime_edge.device.cuda_program import CudaProgram

_log = logging.getLogger(__name__)

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no implicit order with the default stream
_PENDING_BEFORE_CLEANING = 16


class CudaEvent:
    """A point in the work of CUDA streams. See `Event` in base.py."""

    def __init__(self, context: GpuContext, epoch: Epoch) -> None:
        """An event that was not recorded yet."""
        self._context = context
        self._epoch = epoch
        self.is_recorded = False
        with context:
            self.handle = context.driver.create("event_create", EVENT_DEFAULT)
        context.own(self).add("event_destroy", self.handle)

    def query(self) -> bool:
        """Whether everything recorded so far has happened."""
        with self._context:
            return self._context.driver.event_is_done(self.handle)

    def synchronize(self) -> None:
        """Wait until everything recorded so far has happened."""
        with self._context:
            self._context.driver.event_synchronize(self.handle)

    def time_us(self) -> float:
        """Microseconds since the device was opened, 0 before the first time.

        The driver counts in 32-bit floats: the grain is 1/16,000,000 of the value (4 µs after a
        minute). For a short span use `elapsed_us`.
        """
        return self._epoch.elapsed_us(self) if self.is_recorded else 0.0

    def elapsed_us(self, start: CudaEvent) -> float:
        """Microseconds from another recorded event to this one; waits for both."""
        with self._context:
            driver = self._context.driver
            driver.event_synchronize(start.handle)
            driver.event_synchronize(self.handle)
            return driver.elapsed_us(start.handle, self.handle)


class Epoch:
    """The event that `CudaEvent.time_us` counts from."""

    def __init__(self, context: GpuContext) -> None:
        """Record it now."""
        self._context = context
        owned = context.own(self)
        with context.pycuda("a stream") as pycuda:
            stream = owned.add_stream(pycuda, _NON_BLOCKING)
        with context:
            self._handle = context.driver.create("event_create", EVENT_DEFAULT)
            owned.add("event_destroy", self._handle)
            context.driver.event_record(self._handle, stream)
            context.driver.event_synchronize(self._handle)

    def elapsed_us(self, event: CudaEvent) -> float:
        """Microseconds from the epoch to the event."""
        with self._context:
            self._context.driver.event_synchronize(event.handle)
            return self._context.driver.elapsed_us(self._handle, event.handle)


class CudaStream:
    """Work in order on a GPU. Any thread may enqueue. See `Stream` in base.py.

    Attributes:
        handle: the `CUstream`.
        is_owned: made here; a borrowed stream is the caller's and is never destroyed.
    """

    def __init__(self, context: GpuContext, borrowed: int | None = None, keep: Any = None) -> None:
        """Make a stream, or wrap the caller's.

        Args:
            context: of its GPU.
            borrowed: handle of the caller's stream.
            keep: the caller's object, kept while this one lives.
        """
        self._context = context
        self._driver = context.driver
        self._keep = keep
        self._lock = threading.RLock()
        self._pending: deque[tuple[int, int, Any]] = deque()
        self._free_events: list[int] = []
        self._last_ticket = 0
        self._completed = 0
        self._is_closed = False
        self._owned = context.own(self)
        self.is_owned = borrowed is None
        self._pycuda_stream: list[Any] = []
        if borrowed is None:
            with context.pycuda("a stream") as pycuda:
                self._pycuda_stream = self._owned.add_object(pycuda.Stream(_NON_BLOCKING))
                self.handle: int = self._pycuda_stream[0].handle
        else:
            self.handle = borrowed

    def __cuda_stream__(self) -> tuple[int, int]:
        """Lets other libraries use this stream: version of the protocol, and handle."""
        return 0, self.handle

    def enqueue(self, program: CudaProgram, keep: Any) -> int:
        """Enqueue one run: one graph launch, and an event by which its end is known."""
        with self._lock, self._context:
            self._require_usable()
            event = self._take_event()  # first: what is enqueued must be kept until its end
            try:
                program.enqueue_on(self.handle)
            except BaseException:
                self._free_events.append(event)
                raise
            return self._mark(event, (program, keep))

    def record(self, event: Any) -> None:
        """Record an event of `Engine.create_event`, or a pycuda event on a stream made here."""
        if isinstance(event, CudaEvent):
            with self._context:
                self._driver.event_record(event.handle, self.handle)
            event.is_recorded = True
        elif self._pycuda_stream and hasattr(event, "record"):
            with self._context.pycuda("recording a pycuda event"):
                event.record(*self._pycuda_stream)
        else:
            raise _not_an_event(event)

    def wait(self, event: Any) -> None:
        """Let later work wait for an event of `Engine.create_event`, or a pycuda event."""
        if isinstance(event, CudaEvent):
            with self._context:
                self._driver.stream_wait_event(self.handle, event.handle, 0)
        elif self._pycuda_stream and hasattr(event, "record"):
            with self._context.pycuda("waiting for a pycuda event"):
                self._pycuda_stream[0].wait_for_event(event)
        else:
            raise _not_an_event(event)

    def call(self, function: Callable[[], None]) -> None:
        """Call a short function in order, on a thread of the driver; it must not use CUDA."""

        def guarded(_: int | None) -> None:
            try:
                function()
            except Exception:
                _log.exception("a function called by a stream failed")

        callback = HOST_CALLBACK(guarded)
        with self._lock, self._context:
            self._require_usable()
            event = self._take_event()
            self._driver.launch_host(self.handle, callback, None)
            self._mark(event, callback)

    def is_done(self, ticket: int) -> bool:
        """Whether the work with this ticket has finished."""
        if self._completed < ticket:
            self._drop_finished()
        return self._completed >= ticket

    def wait_for(self, ticket: int) -> None:
        """Wait until the work with this ticket has finished."""
        with self._lock:
            event = next((e for t, e, _ in self._pending if t >= ticket), 0)
        if event:
            # A recycled event only makes this wait longer.
            with self._context:
                self._driver.event_synchronize(event)
        self._drop_finished()

    def synchronize(self) -> None:
        """Wait until all work of the stream is done, the caller's own included."""
        with self._context:
            self._driver.stream_synchronize(self.handle)
        self._drop_finished()

    def close(self) -> None:
        """Finish the work; a stream made here is destroyed."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self.wait_for(self._last_ticket)
            if self.is_owned:
                self.synchronize()
        finally:
            self._completed = self._last_ticket
            self._pending.clear()
            self._owned.close()

    def __enter__(self) -> CudaStream:
        """The stream itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Wait for what uses memory that goes away with this object."""
        if self.__dict__.get("_pending"):
            try:
                self.wait_for(self._last_ticket)
            except CudaError as error:
                _log.warning("stream %#x ended with an error: %s", self.handle, error)

    def _require_usable(self) -> None:
        if self._is_closed:
            raise ContextBusyError("the stream is closed; create another with create_stream()")
        if self.is_owned:
            return
        status = ctypes.c_int()
        self._driver.stream_is_capturing(self.handle, ctypes.byref(status))
        if status.value != CAPTURE_STATUS_NONE:
            raise ContextBusyError(
                f"stream {self.handle:#x} is being captured into a graph; one enqueue is a graph "
                "launch already: enqueue before or after the capture, or on another stream"
            )

    def _mark(self, event: int, keep: Any) -> int:
        """Record an event behind the work and keep what it needs until then; needs the lock."""
        self._last_ticket += 1
        self._pending.append((self._last_ticket, event, keep))
        self._driver.event_record(event, self.handle)
        if len(self._pending) >= _PENDING_BEFORE_CLEANING:
            self._drop_finished_here()
        return self._last_ticket

    def _take_event(self) -> int:
        if self._free_events:
            return self._free_events.pop()
        return self._owned.add(
            "event_destroy", self._driver.create("event_create", EVENT_DISABLE_TIMING)
        )

    def _drop_finished(self) -> None:
        if not self._pending:
            return
        with self._context:
            self._drop_finished_here()

    def _drop_finished_here(self) -> None:
        dropped = []  # released outside the lock: destructors may run arbitrary code
        with self._lock:
            while self._pending and self._driver.event_is_done(self._pending[0][1]):
                ticket, event, keep = self._pending.popleft()
                self._free_events.append(event)
                self._completed = ticket
                dropped.append(keep)


def stream_handle(stream: Any) -> int:
    """Handle of a caller's stream.

    Args:
        stream: a pycuda stream, anything with `__cuda_stream__`, or the handle as an integer (1 is
            CUDA's legacy default stream, 2 the per-thread one).

    Raises:
        BindingError: none of these; None and 0 are no streams.
    """
    if isinstance(stream, int) and not isinstance(stream, bool):
        if stream > 0:
            return stream
        raise BindingError(
            f"stream is {stream}; there is no default stream: pass 1 for CUDA's legacy default "
            "stream or 2 for the per-thread one if that is meant"
        )
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        _, handle = protocol() if callable(protocol) else protocol
        return int(handle) or 1
    handle = getattr(stream, "handle", None)
    if isinstance(handle, int) and hasattr(stream, "wait_for_event"):
        return handle or 1
    raise BindingError(
        f"stream is {stream!r}; make one with Engine.create_stream(), or pass a pycuda stream, an "
        "object with __cuda_stream__, or a CUstream handle as an integer (there is no default "
        "stream)"
    )


def _not_an_event(event: Any) -> BindingError:
    return BindingError(
        f"event is {event!r}; make one with Engine.create_event() (pycuda events work with streams "
        "made by Engine.create_stream())"
    )
