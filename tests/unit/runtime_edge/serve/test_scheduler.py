"""Order, admission, batching and bounds of the scheduler, with time passed in."""

from __future__ import annotations

import random

import pytest

from runtime_edge.serve.errors import OverloadError, Refusal
from runtime_edge.serve.latency import LatencyModel, ProfileLatency
from runtime_edge.serve.scheduler import Job, JobState, PlanQueue, StreamQueue

MS = 1_000_000


def model(**rows_us: float) -> LatencyModel:
    """`model(r1=1000, r4=2000)`: profiles of 1 and 4 rows."""
    return LatencyModel([ProfileLatency(int(k[1:]), k, us) for k, us in rows_us.items()])


def queue(name="p", *, requests=100, nbytes=1 << 30, wait_ms=1000.0, delay_us=0.0, weight=1.0):
    return PlanQueue(name, requests, nbytes, wait_ms * 1000, delay_us, weight)


def job(plan, latency, *, at=0, rows=1, priority=2, deadline_ms=None, group=None, nbytes=10):
    deadline = None if deadline_ms is None else at + int(deadline_ms * MS)
    return Job(
        plan,
        latency,
        group,
        rows,
        nbytes,
        priority,
        at,
        deadline,
        can_batch=group is not None,
    )


def drain(stream, now=0):
    order = []
    while True:
        batch, _ = stream.next_batch(now)
        if batch is None:
            return order
        order.append(batch.jobs)
        now = int(stream.running_until_ns)


def test_earliest_deadline_first_across_plans():
    stream, latency = StreamQueue(), model(r1=1000)
    jobs = [job(queue(f"p{i}"), latency, deadline_ms=d) for i, d in enumerate((50, 20, 80, 10, 30))]
    for one in jobs:
        stream.submit(one, 0)
    order = [batch[0].deadline_ns for batch in drain(stream)]
    assert order == sorted(order)


def test_priority_goes_before_deadline():
    stream, latency = StreamQueue(), model(r1=1000)
    late = job(queue("a"), latency, priority=1, deadline_ms=500)
    soon = job(queue("b"), latency, priority=2, deadline_ms=50)
    stream.submit(soon, 0)
    stream.submit(late, 0)
    assert [batch[0] for batch in drain(stream)] == [late, soon]


def test_what_cannot_be_met_is_refused_at_once_with_the_wait():
    stream, latency = StreamQueue(), model(r1=10_000)
    plan = queue()
    for _ in range(5):
        stream.submit(job(plan, latency, deadline_ms=55), 0)
    with pytest.raises(OverloadError, match=r"50\.0 ms waiting") as caught:
        stream.submit(job(plan, latency, deadline_ms=56), 0)
    assert caught.value.reason is Refusal.DEADLINE
    assert caught.value.status == 503
    assert caught.value.retry_after_s >= 1


def test_an_urgent_request_may_not_make_an_accepted_one_late():
    stream, latency = StreamQueue(), model(r1=10_000)
    accepted = job(queue("a"), latency, priority=2, deadline_ms=15)
    stream.submit(accepted, 0)
    with pytest.raises(OverloadError, match="plan 'a' late"):
        stream.submit(job(queue("b"), latency, priority=1), 0)
    assert stream.jobs == [accepted]


def test_running_work_counts():
    stream, latency = StreamQueue(), model(r1=10_000)
    stream.submit(job(queue(), latency), 0)
    stream.next_batch(0)
    with pytest.raises(OverloadError):
        stream.submit(job(queue(), latency, at=2 * MS, deadline_ms=15), 2 * MS)
    stream.submit(job(queue(), latency, at=2 * MS, deadline_ms=19), 2 * MS)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"requests": 3}, Refusal.QUEUE_REQUESTS),
        ({"nbytes": 30}, Refusal.QUEUE_BYTES),
        ({"wait_ms": 25.0}, Refusal.QUEUE_TIME),
    ],
)
def test_queues_are_bounded_in_requests_bytes_and_time(bounds, reason):
    stream, latency, plan = StreamQueue(), model(r1=10_000), queue(**bounds)
    for _ in range(3):
        stream.submit(job(plan, latency), 0)
    with pytest.raises(OverloadError) as caught:
        stream.submit(job(plan, latency), 0)
    assert caught.value.reason is reason
    assert len(stream.jobs) == plan.num_queued == 3
    assert plan.queued_bytes == 30


def test_expired_jobs_are_taken_out():
    stream, latency, plan = StreamQueue(), model(r1=10_000), queue(wait_ms=100)
    first = job(plan, latency, deadline_ms=30)
    second = job(plan, latency)
    stream.submit(first, 0)
    stream.submit(second, 0)
    assert stream.take_expired(19 * MS) == []
    assert stream.take_expired(21 * MS) == [first]  # 10 ms of work no longer fit into 30
    assert stream.take_expired(101 * MS) == [second]
    assert plan.num_queued == plan.queued_bytes == 0


def test_cancelled_jobs_leave_and_running_ones_cannot():
    stream, latency, plan = StreamQueue(), model(r1=1000), queue()
    one, two = job(plan, latency), job(plan, latency)
    stream.submit(one, 0)
    stream.submit(two, 0)
    assert stream.cancel(two)
    assert not stream.cancel(two)
    batch, _ = stream.next_batch(0)
    assert batch is not None
    assert batch.jobs == (one,)
    assert not stream.cancel(one)
    assert one.state is JobState.RUNNING


def test_requests_of_one_plan_share_an_execution():
    stream, latency, plan, lane = StreamQueue(), model(r1=1000, r4=2000), queue(), object()
    rows = [1, 2, 1, 3]
    for num in rows:
        stream.submit(job(plan, latency, rows=num, group=lane), 0)
    batches = drain(stream)
    assert [[one.rows for one in batch] for batch in batches] == [[1, 2, 1], [3]]


def test_company_is_waited_for_no_longer_than_the_delay():
    stream, latency, lane = StreamQueue(), model(r1=1000, r4=2000), object()
    plan = queue(delay_us=5000)
    stream.submit(job(plan, latency, group=lane), 0)
    assert stream.next_batch(1 * MS) == (None, 5 * MS)
    stream.submit(job(plan, latency, at=2 * MS, group=lane), 2 * MS)
    batch, _ = stream.next_batch(5 * MS)
    assert batch is not None
    assert batch.rows == 2


def test_a_full_batch_does_not_wait():
    stream, latency, lane = StreamQueue(), model(r1=1000, r4=2000), object()
    plan = queue(delay_us=5000)
    for _ in range(4):
        stream.submit(job(plan, latency, group=lane), 0)
    batch, _ = stream.next_batch(0)
    assert batch is not None
    assert batch.rows == 4


def test_a_deadline_ends_the_wait_for_company():
    stream, latency, lane = StreamQueue(), model(r1=1000, r4=2000), object()
    plan = queue(delay_us=50_000)
    stream.submit(job(plan, latency, group=lane, deadline_ms=10), 0)
    _, wake = stream.next_batch(0)
    assert wake == 8 * MS  # deadline less the largest profile's time


def test_others_run_while_one_plan_waits_for_company():
    stream, latency, lane = StreamQueue(), model(r1=1000, r4=2000), object()
    stream.submit(job(queue("a", delay_us=50_000), latency, group=lane), 0)
    other = job(queue("b"), model(r1=1000))
    stream.submit(other, 0)
    batch, _ = stream.next_batch(0)
    assert batch is not None
    assert batch.jobs == (other,)


def test_versions_of_a_plan_are_never_mixed():
    stream, latency, plan = StreamQueue(), model(r1=1000, r4=2000), queue()
    old, new = object(), object()
    for group in (old, new, old, new):
        stream.submit(job(plan, latency, group=group), 0)
    for batch in drain(stream):
        assert len({id(one.group) for one in batch}) == 1


def test_a_flooded_plan_does_not_starve_another():
    stream, latency = StreamQueue(), model(r1=1000)
    flood, light = queue("flood"), queue("light")
    for _ in range(60):
        stream.submit(job(flood, latency), 0)
    ours = job(light, latency, at=1 * MS)
    stream.submit(ours, 1 * MS)
    order = [batch[0] for batch in drain(stream)]
    assert order.index(ours) < 5


def test_requests_on_their_way_count_and_a_single_one_fits_whatever_its_bytes():
    stream, plan = StreamQueue(), queue(requests=3, nbytes=100)
    assert stream.refuse_early(plan, 1000, 0) is None
    plan.num_coming, plan.coming_bytes = 1, 60
    assert stream.refuse_early(plan, 40, 0) is None
    assert stream.refuse_early(plan, 41, 0).reason is Refusal.QUEUE_BYTES
    stream.submit(job(plan, model(r1=1000), nbytes=10), 0)
    assert stream.refuse_early(plan, 30, 0) is None
    assert stream.refuse_early(plan, 31, 0).reason is Refusal.QUEUE_BYTES
    plan.num_coming = 2
    assert stream.refuse_early(plan, 1, 0).reason is Refusal.QUEUE_REQUESTS


def test_a_body_in_chunks_grows_within_the_same_bounds():
    stream, plan = StreamQueue(), queue(requests=2, nbytes=100)
    plan.num_coming, plan.coming_bytes = 1, 90
    assert stream.refuse_growth(plan, 1000, 0) is None  # alone
    plan.num_coming = 2  # as many as may be: it is one of them
    assert stream.refuse_growth(plan, 10, 0) is None
    refused = stream.refuse_growth(plan, 11, 0)
    assert refused.reason is Refusal.QUEUE_BYTES
    assert "hold 90 bytes and this one has 11 more, at most 100" in str(refused)
    plan.num_coming, plan.coming_bytes = 1, 40
    stream.submit(job(plan, model(r1=1000), nbytes=50), 0)
    assert stream.refuse_growth(plan, 10, 0) is None
    assert stream.refuse_growth(plan, 11, 0).reason is Refusal.QUEUE_BYTES


def test_weights_divide_the_device():
    stream, latency = StreamQueue(), model(r1=1000)
    heavy, light = queue("heavy", weight=3.0), queue("light")
    for _ in range(40):
        stream.submit(job(heavy, latency), 0)
        stream.submit(job(light, latency), 0)
    first = [batch[0].queue.name for batch in drain(stream)][:20]
    assert 13 <= first.count("heavy") <= 17


def test_accepted_requests_meet_their_deadlines_when_times_are_as_measured():
    random.seed(5)
    stream = StreamQueue()
    plans = [(queue(f"p{i}"), model(r1=us)) for i, us in enumerate((1000, 3000, 7000))]
    now, accepted, missed, refused = 0, 0, 0, 0
    arrivals = sorted(random.randrange(2000 * MS) for _ in range(1500))
    running = None
    while arrivals or stream.jobs or running:
        next_end = running[1] if running else float("inf")
        next_arrival = arrivals[0] if arrivals else float("inf")
        now = int(min(next_end, next_arrival))
        if next_end <= next_arrival:
            missed += any(one.deadline_ns < now for one in running[0])
            running = None
        else:
            arrivals.pop(0)
            plan, latency = random.choice(plans)
            try:
                stream.submit(
                    job(
                        plan,
                        latency,
                        at=now,
                        priority=random.choice((1, 2, 2)),
                        deadline_ms=random.choice((10, 30, 100)),
                    ),
                    now,
                )
                accepted += 1
            except OverloadError:
                refused += 1
        if running is None:
            assert stream.take_expired(now) == []
            batch, _ = stream.next_batch(now)
            if batch is not None:
                running = (batch.jobs, stream.running_until_ns)
    assert missed == 0
    assert accepted > 400
    assert refused > 400


def test_latency_follows_what_is_measured_and_survives_a_stall():
    latency = ProfileLatency(1, "b1", 1000.0)
    for _ in range(100):
        latency.update(2000.0)
    assert latency.mean_us == pytest.approx(2000, rel=0.01)
    latency.update(10_000_000.0)
    assert latency.mean_us < 3000
