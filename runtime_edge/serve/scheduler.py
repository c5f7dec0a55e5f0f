"""What runs next on a stream: priorities, earliest deadline first, admission, dynamic batches.

A state machine without clock, threads or input and output: times are passed in, in nanoseconds.

Order: by priority, then by deadline. A request without a deadline gets one for the order alone:
the plan's virtual clock plus its queue time. The virtual clock runs ahead by what the plan's
requests cost times the number of busy plans (by weight), so a plan that is flooded falls behind by
its own doing and the others keep their share.
"""

from __future__ import annotations

import enum
import itertools
import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from runtime_edge.serve.errors import OverloadError, Refusal
from runtime_edge.serve.latency import LatencyModel


class JobState(enum.Enum):
    """Where a job is."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class PlanQueue:
    """Bounds and present load of one served plan.

    Attributes:
        name: of the plan, for messages.
        max_requests, max_bytes, max_wait_us: bounds of what waits.
        batch_delay_us: how long a request may wait for company.
        weight: share against other plans.
        num_queued, queued_bytes: what waits now.
        num_coming, coming_bytes: requests that hold a place and are not queued yet; see places.py.
        virtual_ns: see the module.
    """

    name: str
    max_requests: int
    max_bytes: int
    max_wait_us: float
    batch_delay_us: float = 0.0
    weight: float = 1.0
    num_queued: int = 0
    queued_bytes: int = 0
    num_coming: int = 0
    coming_bytes: int = 0
    virtual_ns: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """One request in the scheduler.

    Attributes:
        queue: of its plan; latency: times of the plan version that will run it.
        group: jobs of one group may share an execution.
        rows: of its inputs; can_batch: rows may be put together with those of other jobs.
        nbytes: of its inputs.
        priority: 1 is first.
        arrival_ns: monotonic; deadline_ns: when the answer must be ready, None is whenever.
        finish: called by the executor with the result.
        work: what the executor needs.
    """

    queue: PlanQueue
    latency: LatencyModel
    group: Any
    rows: int
    nbytes: int
    priority: int
    arrival_ns: int
    deadline_ns: int | None = None
    can_batch: bool = False
    work: Any = None
    finish: Callable[[Any], None] | None = None
    order: tuple[int, float, int] = (0, 0.0, 0)
    state: JobState = JobState.NEW

    @property
    def latest_start_ns(self) -> float:
        """When waiting any longer is in vain."""
        bound = self.arrival_ns + self.queue.max_wait_us * 1000
        if self.deadline_ns is None:
            return bound
        return min(bound, self.deadline_ns - self.latency.time_us(self.rows) * 1000)


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that run together: one job of any size, or several that fit one profile."""

    jobs: tuple[Job, ...]
    rows: int


@dataclass(slots=True)
class StreamQueue:
    """Everything that waits for one stream. Not thread-safe.

    Attributes:
        jobs: in order.
        running_until_ns: expected end of what runs now.
    """

    jobs: list[Job] = field(default_factory=list)
    running_until_ns: float = 0.0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def refuse_early(self, queue: PlanQueue, nbytes: int, now_ns: int) -> OverloadError | None:
        """The bounds that can be checked before a request's body is here.

        Requests whose bodies are on their way count as if they waited. A request that would be
        alone is within the bound of bytes, whatever its size.
        """
        num = queue.num_queued + queue.num_coming
        held_bytes = queue.queued_bytes + queue.coming_bytes
        if num >= queue.max_requests:
            return OverloadError(
                Refusal.QUEUE_REQUESTS,
                f"plan '{queue.name}': {num} requests wait, at most {queue.max_requests} may; try "
                "again later",
                self._seconds_of_backlog(now_ns),
            )
        if num and held_bytes + nbytes > queue.max_bytes:
            return self._too_many_bytes(queue, held_bytes, nbytes, now_ns)
        return None

    def refuse_growth(self, queue: PlanQueue, nbytes: int, now_ns: int) -> OverloadError | None:
        """As `refuse_early`, for more of a body that holds a place already."""
        held_bytes = queue.queued_bytes + queue.coming_bytes
        if queue.num_queued + queue.num_coming > 1 and held_bytes + nbytes > queue.max_bytes:
            return self._too_many_bytes(queue, held_bytes, nbytes, now_ns)
        return None

    def submit(self, job: Job, now_ns: int) -> None:
        """Queue a job, if it can be done in time and makes no accepted one late.

        Raises:
            OverloadError: the queue is full, the wait too long, or the deadline out of reach.
        """
        refused = self.refuse_early(job.queue, job.nbytes, now_ns)
        if refused is not None:
            raise refused
        queue = job.queue
        cost_ns = job.latency.time_us(job.rows) * 1000
        weights = {other.queue.name: other.queue.weight for other in self.jobs}
        weights[queue.name] = queue.weight
        share = sum(weights.values()) / queue.weight
        virtual_ns = max(queue.virtual_ns, float(job.arrival_ns)) + cost_ns * share
        due_ns = job.deadline_ns
        order_ns = virtual_ns + queue.max_wait_us * 1000 if due_ns is None else float(due_ns)
        job.order = (job.priority, order_ns, next(self._numbers))
        self._admit(job, now_ns)
        queue.virtual_ns = virtual_ns
        queue.num_queued += 1
        queue.queued_bytes += job.nbytes
        job.state = JobState.QUEUED
        insort(self.jobs, job, key=attrgetter("order"))

    def cancel(self, job: Job) -> bool:
        """Take a job out of the queue; false when it is not there any more."""
        if job.state is not JobState.QUEUED:
            return False
        self._remove(job)
        job.state = JobState.GONE
        return True

    def take_expired(self, now_ns: int) -> list[Job]:
        """Remove the jobs that wait in vain."""
        expired = [job for job in self.jobs if job.latest_start_ns < now_ns]
        for job in expired:
            self._remove(job)
            job.state = JobState.GONE
        return expired

    def next_batch(self, now_ns: int) -> tuple[Batch | None, float | None]:
        """What to run now, or when to ask again (None: when a job has come)."""
        wake_ns: float | None = None
        seen: set[int] = set()
        for job in self.jobs:
            if not job.can_batch:
                return self._start((job,), now_ns), None
            if id(job.group) in seen:
                continue
            seen.add(id(job.group))
            together, rows, has_more = self._gather(job)
            due_ns = self._wait_until(together)
            if has_more or rows >= job.latency.max_rows or due_ns <= now_ns:
                return self._start(tuple(together), now_ns), None
            wake_ns = due_ns if wake_ns is None else min(wake_ns, due_ns)
        return None, wake_ns

    def _gather(self, first: Job) -> tuple[list[Job], int, bool]:
        """Jobs in order that fit one execution with `first`; whether one did not fit any more."""
        together, rows = [first], first.rows
        for job in self.jobs:
            if job is first or job.group is not first.group or not job.can_batch:
                continue
            if rows + job.rows > first.latency.max_rows:
                return together, rows, True
            together.append(job)
            rows += job.rows
        return together, rows, False

    def _wait_until(self, jobs: list[Job]) -> float:
        """How long company may be waited for: the delay bound, and everyone's latest start."""
        delay_ns = jobs[0].queue.batch_delay_us * 1000
        oldest_ns = min(job.arrival_ns for job in jobs)
        margin_ns = jobs[0].latency.margin_us(jobs[0].latency.max_rows) * 1000
        largest_ns = jobs[0].latency.profiles[-1].mean_us * 1000
        dues = [j.deadline_ns - largest_ns - margin_ns for j in jobs if j.deadline_ns is not None]
        return min([oldest_ns + delay_ns, *dues])

    def _start(self, jobs: tuple[Job, ...], now_ns: int) -> Batch:
        rows = sum(job.rows for job in jobs)
        for job in jobs:
            self._remove(job)
            job.state = JobState.RUNNING
        self.running_until_ns = now_ns + jobs[0].latency.time_us(rows) * 1000
        return Batch(jobs, rows)

    def _remove(self, job: Job) -> None:
        self.jobs.remove(job)
        job.queue.num_queued -= 1
        job.queue.queued_bytes -= job.nbytes

    def _admit(self, job: Job, now_ns: int) -> None:
        """Go through the queue as it would be run, with and without the new job."""
        start_us = max(0.0, self.running_until_ns - now_ns) / 1000
        with_us = without_us = start_us
        rows_with: dict[int, int] = {}
        rows_without: dict[int, int] = {}
        is_placed = False
        for other in [*self.jobs, job]:
            if not is_placed and (other is job or other.order > job.order):
                is_placed = True
                added_us = _add(rows_with, job)
                self._check_new(job, with_us, with_us + added_us, now_ns)
                with_us += added_us
            if other is job:
                return
            with_us += _add(rows_with, other)
            without_us += _add(rows_without, other)
            if not is_placed or other.deadline_ns is None:
                continue
            left_us = (other.deadline_ns - now_ns) / 1000
            if without_us <= left_us < with_us:
                raise OverloadError(
                    Refusal.DEADLINE,
                    f"plan '{job.queue.name}': this request would make one of plan "
                    f"'{other.queue.name}' late, which was accepted before; try again later",
                    _seconds(with_us),
                )

    def _check_new(self, job: Job, wait_us: float, finish_us: float, now_ns: int) -> None:
        queue = job.queue
        if wait_us > queue.max_wait_us:
            raise OverloadError(
                Refusal.QUEUE_TIME,
                f"plan '{queue.name}': the wait would be {wait_us / 1000:,.1f} ms, at most "
                f"{queue.max_wait_us / 1000:,.1f} ms are allowed; try again later",
                _seconds(wait_us - queue.max_wait_us),
            )
        if job.deadline_ns is None:
            return
        finish_us += job.latency.margin_us(job.rows)
        left_us = (job.deadline_ns - now_ns) / 1000
        if finish_us > left_us:
            raise OverloadError(
                Refusal.DEADLINE,
                f"plan '{queue.name}': the answer would take {finish_us / 1000:,.1f} ms (of which "
                f"{wait_us / 1000:,.1f} ms waiting), the deadline is in {left_us / 1000:,.1f} ms",
                _seconds(wait_us),
            )

    def _too_many_bytes(
        self, queue: PlanQueue, held_bytes: int, nbytes: int, now_ns: int
    ) -> OverloadError:
        return OverloadError(
            Refusal.QUEUE_BYTES,
            f"plan '{queue.name}': waiting requests hold {held_bytes:,} bytes and this one has "
            f"{nbytes:,} more, at most {queue.max_bytes:,} may wait; try again later",
            self._seconds_of_backlog(now_ns),
        )

    def _seconds_of_backlog(self, now_ns: int) -> int:
        rows: dict[int, int] = {}
        backlog_us = max(0.0, self.running_until_ns - now_ns) / 1000
        return _seconds(backlog_us + sum(_add(rows, job) for job in self.jobs))


def _add(rows: dict[int, int], job: Job) -> float:
    """Time that a job adds to those of its group so far, in microseconds."""
    if not job.can_batch:
        return job.latency.time_us(job.rows)
    before = rows.get(id(job.group), 0)
    rows[id(job.group)] = before + job.rows
    if before == 0:
        return job.latency.time_us(job.rows)
    return job.latency.time_us(before + job.rows) - job.latency.time_us(before)


def _seconds(time_us: float) -> int:
    return max(1, math.ceil(time_us / 1e6))
