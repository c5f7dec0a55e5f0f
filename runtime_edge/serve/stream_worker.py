"""The thread that runs everything of one stream, one batch after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime_edge.serve.deployment import BatchResult
from runtime_edge.serve.errors import OverloadError
from runtime_edge.serve.scheduler import Batch, Job, PlanQueue, StreamQueue
from runtime_edge.serve.stream_memory import StreamMemory

_log = logging.getLogger(__name__)


class StreamWorker:
    """Queue, memory and thread of one stream.

    Attributes:
        name: of the stream, with its device.
        memory: what its plans share.
        last_completed_ns: when an inference last ended, monotonic.
    """

    def __init__(
        self,
        name: str,
        memory: StreamMemory,
        loop: asyncio.AbstractEventLoop,
        on_done: Callable[[StreamWorker, Batch, BatchResult], None],
        on_expired: Callable[[list[Job]], None],
    ) -> None:
        """Start the thread.

        Args:
            name: for logs and traces.
            memory: of the stream.
            loop: on whose thread the callbacks run.
            on_done: a batch has run, well or not.
            on_expired: jobs that waited in vain.
        """
        self.name = name
        self.memory = memory
        self.last_completed_ns = time.monotonic_ns()
        self._idle_test: Callable[[], None] | None = None
        self._idle_test_s = 0.0
        self._loop = loop
        self._on_done = on_done
        self._on_expired = on_expired
        self._queue = StreamQueue()
        self._condition = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=f"edgeplan-{name}", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue.jobs)

    def refuse_early(self, queue: PlanQueue, nbytes: int) -> OverloadError | None:
        """See `StreamQueue.refuse_early`."""
        with self._condition:
            return self._queue.refuse_early(queue, nbytes, time.monotonic_ns())

    def refuse_growth(self, queue: PlanQueue, nbytes: int) -> OverloadError | None:
        """See `StreamQueue.refuse_growth`."""
        with self._condition:
            return self._queue.refuse_growth(queue, nbytes, time.monotonic_ns())

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            OverloadError: see `StreamQueue.submit`.
        """
        with self._condition:
            self._queue.submit(job, time.monotonic_ns())
            self._condition.notify()

    def cancel(self, job: Job) -> bool:
        """Take a job out of the queue; false when it runs or ran already."""
        with self._condition:
            return self._queue.cancel(job)

    def take_expired(self) -> list[Job]:
        """Remove jobs that wait in vain."""
        with self._condition:
            return self._queue.take_expired(time.monotonic_ns())

    def call(self, function: Callable[[], Any], *, is_inference: bool = False) -> Any:
        """Run a function on the thread, between batches; returns or raises what it does.

        Args:
            function: what to run.
            is_inference: its end shows that the stream gets on.
        """
        done = threading.Event()
        outcome: list[Any] = [None, None]

        def guarded() -> None:
            try:
                outcome[0] = function()
                if is_inference:
                    self.last_completed_ns = time.monotonic_ns()
            except BaseException as error:
                outcome[1] = error
            finally:
                done.set()

        with self._condition:
            if self._is_closing:
                raise RuntimeError(f"stream {self.name} is closed")
            self._calls.append(guarded)
            self._condition.notify()
        done.wait()
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def watch(self, test: Callable[[], None] | None, after_s: float) -> None:
        """Have a test run on the thread whenever nothing has run for after_s; None ends that."""
        with self._condition:
            self._idle_test, self._idle_test_s = test, after_s
            self._condition.notify()

    def close(self) -> None:
        """End the thread when what runs now has ended; waiting jobs are left alone."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()
        self.memory.close()

    def _work(self) -> None:
        while True:
            task = self._next()
            if task is None:
                return
            if not isinstance(task, Batch):
                task()
                continue
            lane = task.jobs[0].group
            result = task.jobs[0].work.deployment.execute(task, lane)
            self.last_completed_ns = time.monotonic_ns()
            # The loop may be closed already when the daemon is killed while something runs.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_done, self, task, result)

    def _next(self) -> Batch | Callable[[], None] | None:
        with self._condition:
            while True:
                now = time.monotonic_ns()
                if self._calls:
                    return self._calls.popleft()
                if self._is_closing:
                    return None
                expired = self._queue.take_expired(now)
                if expired:
                    self._loop.call_soon_threadsafe(self._on_expired, expired)
                batch, wake_ns = self._queue.next_batch(now)
                if batch is not None:
                    return batch
                timeout_s = None if wake_ns is None else max(0.0, (wake_ns - now) / 1e9)
                if self._idle_test is not None:
                    due_s = self._idle_test_s - (now - self.last_completed_ns) / 1e9
                    if due_s <= 0:
                        return self._test
                    timeout_s = due_s if timeout_s is None else min(timeout_s, due_s)
                self._condition.wait(timeout_s)

    def _test(self) -> None:
        test = self._idle_test
        if test is None:
            return
        try:
            test()
            self.last_completed_ns = time.monotonic_ns()
        except Exception:
            # No new time stamp: the watchdog sees that nothing completes.
            _log.exception("stream %s: the self-test failed", self.name)
            time.sleep(min(1.0, self._idle_test_s))
