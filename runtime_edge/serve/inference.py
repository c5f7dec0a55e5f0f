"""From a checked request to its answer: admission, queue, execution, counting.

Everything here runs on the event loop's thread; `StreamWorker` does the rest.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime_edge.serve.deployment import BatchResult
from runtime_edge.serve.errors import OverloadError, Refusal, RequestError
from runtime_edge.serve.infer_work import InferWork
from runtime_edge.serve.places import Place, Places
from runtime_edge.serve.repository import Repository, ServedPlan
from runtime_edge.serve.scheduler import Batch, Job, JobState
from runtime_edge.serve.statistics import RequestTimes
from runtime_edge.serve.stream_worker import StreamWorker
from runtime_edge.serve.trace import Trace, TracedRequest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        plan: that served it; work: the request.
        outputs: bytes per output binding, None where they are in place already; empty when there
            is an error.
        error: why there are none.
    """

    plan: ServedPlan
    work: InferWork
    outputs: list[bytes | None]
    error: RequestError | None = None


class InferenceService:
    """Takes requests of all protocols.

    Attributes:
        is_draining: nothing new is taken.
        num_pending: accepted and not answered yet.
        places: of requests whose bodies are on their way.
        on_idle: called when the last one has been answered; on_failure: an execution failed.
    """

    def __init__(self, repository: Repository, trace: Trace) -> None:
        """A service for the repository's plans."""
        self.repository = repository
        self.trace = trace
        self.is_draining = False
        self.num_pending = 0
        self.places = Places()
        self.on_idle: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        self._batches = itertools.count(1)

    def begin(self, name: str, version: str | None, nbytes: int) -> ServedPlan:
        """The plan for a request whose body may still be on its way.

        Raises:
            RequestError: 404: no such plan.
            OverloadError: 503: draining, not loaded, or its queue is full.
        """
        plan = self.repository.plan(name, version)
        refused: OverloadError | None = None
        if self.is_draining:
            refused = OverloadError(Refusal.DRAINING, "the daemon is shutting down", 5)
        elif plan.deployment is None or plan.worker is None:
            text = f"model '{name}' is not ready: {plan.state.lower()}"
            text += f" ({plan.reason})" if plan.reason else ""
            refused = OverloadError(Refusal.NOT_READY, text, 5)
        else:
            refused = plan.worker.refuse_early(plan.queue, nbytes)
            while refused is not None and self.places.make_room(plan.queue):
                refused = plan.worker.refuse_early(plan.queue, nbytes)
        if refused is not None:
            self._count_refusal(plan, refused, 0)
            raise refused
        return plan

    def grow(self, plan: ServedPlan, place: Place, nbytes: int) -> None:
        """Count more of a body that comes in chunks.

        Raises:
            OverloadError: 503: the queue has no room for them.
        """
        if plan.worker is not None:
            refused = plan.worker.refuse_growth(plan.queue, nbytes)
            while refused is not None and self.places.make_room(plan.queue, spare=place):
                refused = plan.worker.refuse_growth(plan.queue, nbytes)
            if refused is not None:
                self._count_refusal(plan, refused, 0)
                raise refused
        place.grow(nbytes)

    def submit(
        self,
        plan: ServedPlan,
        work: InferWork,
        received_ns: int,
        answer: Callable[[Answer], None],
    ) -> Job:
        """Queue a request; `answer` is called later, once, unless it is cancelled before.

        Raises:
            RequestError: 400: priority out of range; OverloadError: refused now. The work's memory
                is the caller's then.
        """
        config = plan.config
        priority = work.priority or config.default_priority
        if priority > config.priority_levels:
            raise RequestError(
                400, f"priority {priority} is out of range 1 to {config.priority_levels}"
            )
        deadline_us = work.timeout_us or config.deadline_ms * 1000
        model = work.deployment.latencies[work.lane]
        job = Job(
            plan.queue,
            model,
            work.lane,
            work.rows,
            work.nbytes,
            priority,
            received_ns,
            received_ns + int(deadline_us * 1000) if deadline_us else None,
            can_batch=work.lane.is_batched and work.rows <= work.lane.max_rows,
            work=work,
            finish=answer,
        )
        worker = self.repository.devices.worker_of(work.deployment)
        assert worker is not None
        if self.is_draining:
            refused = OverloadError(Refusal.DRAINING, "the daemon is shutting down", 5)
            self._count_refusal(plan, refused, time.monotonic_ns() - received_ns)
            raise refused
        try:
            worker.submit(job)
        except OverloadError as error:
            self._count_refusal(plan, error, time.monotonic_ns() - received_ns)
            raise
        work.deployment.num_pending += 1
        self.num_pending += 1
        return job

    def cancel(self, plan: ServedPlan, job: Job) -> None:
        """The client has gone: nothing is computed, or what is computed is dropped."""
        if job.finish is None:
            return
        job.finish = None
        plan.statistics.add_failure("CANCELED", time.monotonic_ns() - job.arrival_ns)
        worker = self.repository.devices.worker_of(job.work.deployment)
        if worker is not None and worker.cancel(job):
            self._end(job)

    def count_rejected(self, plan: ServedPlan, received_ns: int) -> None:
        """A request that was wrong in itself."""
        plan.statistics.add_failure("OTHER", time.monotonic_ns() - received_ns)

    def on_done(self, worker: StreamWorker, batch: Batch, result: BatchResult) -> None:
        """A batch has run: answer its requests."""
        number = next(self._batches)
        parts = result.times
        timed = RequestTimes(
            0,
            parts.start_ns,
            parts.end_ns,
            0,
            max(0, parts.infer_ns - parts.start_ns),
            max(0, parts.output_ns - parts.infer_ns),
            max(0, parts.end_ns - parts.output_ns),
        )
        work: InferWork = batch.jobs[0].work
        plan = self.repository.plans.get(work.deployment.config.name)
        if result.error is not None:
            self._fail(plan, batch, result.error)
            return
        assert plan is not None
        for index, (job, outputs) in enumerate(zip(batch.jobs, result.outputs, strict=True)):
            if index in result.refused:
                self._reject(plan, job, result.refused[index])
            else:
                self._answer(plan, worker, job, outputs, timed, number)
        if result.num_runs:  # none when all were refused; nobody waits for the counting
            plan.statistics.add_execution(
                min(batch.rows, work.lane.max_rows),
                result.num_runs,
                result.rows - batch.rows,
                timed,
            )

    def on_expired(self, jobs: list[Job]) -> None:
        """Jobs that waited in vain."""
        now = time.monotonic_ns()
        for job in jobs:
            job.state = JobState.GONE
            work: InferWork = job.work
            plan = self.repository.plans[work.deployment.config.name]
            waited_ms = (now - job.arrival_ns) / 1e6
            error = OverloadError(
                Refusal.EXPIRED,
                f"plan '{job.queue.name}': the request waited {waited_ms:,.1f} ms and could not be "
                "answered in time any more",
            )
            answer, job.finish = job.finish, None
            if answer is not None:
                self._count_refusal(plan, error, now - job.arrival_ns)
                answer(Answer(plan, work, [], error))
            self._end(job)

    def _answer(
        self,
        plan: ServedPlan,
        worker: StreamWorker,
        job: Job,
        outputs: list[bytes | None],
        timed: RequestTimes,
        batch_number: int,
    ) -> None:
        work: InferWork = job.work
        job.state = JobState.GONE
        answer, job.finish = job.finish, None
        work.release_inputs()
        if answer is not None:
            answer(Answer(plan, work, outputs))
            now = time.monotonic_ns()
            times = RequestTimes(
                job.arrival_ns,
                timed.start_ns,
                timed.end_ns,
                now,
                timed.input_ns,
                timed.infer_ns,
                timed.output_ns,
            )
            plan.statistics.add_success(times, job.rows)
            if job.deadline_ns is not None and now > job.deadline_ns:
                plan.statistics.missed_deadlines += 1
            if self.trace.is_on:
                self.trace.add(
                    TracedRequest(
                        next(self._numbers),
                        plan.config.name,
                        worker.name,
                        job.priority,
                        batch_number,
                        job.rows,
                        work.deployment.generation,
                        times,
                        job.deadline_ns,
                    )
                )
        self._end(job)

    def _reject(self, plan: ServedPlan, job: Job, error: RequestError) -> None:
        """A job that turned out to be wrong when it was its turn."""
        job.state = JobState.GONE
        answer, job.finish = job.finish, None
        if answer is not None:
            self.count_rejected(plan, job.arrival_ns)
            answer(Answer(plan, job.work, [], error))
        self._end(job)

    def _fail(self, plan: ServedPlan | None, batch: Batch, error: Exception) -> None:
        _log.error("plan %s: an execution failed", batch.jobs[0].queue.name, exc_info=error)
        refused = RequestError(500, f"the execution failed: {error}")
        for job in batch.jobs:
            job.state = JobState.GONE
            answer, job.finish = job.finish, None
            if answer is not None and plan is not None:
                plan.statistics.add_failure("BACKEND", time.monotonic_ns() - job.arrival_ns)
                answer(Answer(plan, job.work, [], refused))
            self._end(job)
        self.on_failure()

    def _end(self, job: Job) -> None:
        work: InferWork = job.work
        work.release()
        self.repository.finished(work.deployment)
        self.num_pending -= 1
        if self.num_pending == 0:
            self.on_idle()

    def _count_refusal(self, plan: ServedPlan, error: OverloadError, duration_ns: int) -> None:
        plan.statistics.refusals[error.reason.value] += 1
        plan.statistics.add_failure("REJECTED", duration_ns)
