"""Streams and events: order, several of everything at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support import tiny_plans

import runtime_edge as rt
from planformat.writer import plan_bytes

X = np.arange(1000, dtype=np.float32).reshape(1, 1000)


@pytest.fixture(scope="module")
def engine():
    return rt.load(plan_bytes(tiny_plans.plan(slow_times=1000)))


def test_threads_contexts_and_streams_at_once(engine):
    failures = []

    def user(seed: int) -> None:
        stream = engine.create_stream()
        with engine.create_context(num_workers=1 + seed % 3) as context:
            for run in range(40):
                batch = [(X + np.float32(seed * 1000 + run * 10 + k)) for k in range(5)]
                outputs = [np.zeros_like(X) for _ in batch]
                for x, y in zip(batch, outputs, strict=True):
                    context.enqueue({"x": x, "y": y}, stream)
                stream.synchronize()
                for x, y in zip(batch, outputs, strict=True):
                    if not np.array_equal(y, x * np.float32(0.5) + np.float32(3)):
                        failures.append((seed, run))
        stream.close()

    threads = [threading.Thread(target=user, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_commands_of_a_stream_happen_in_order(engine):
    stream, event = engine.create_stream(), engine.create_event()
    seen = []
    for i in range(100):
        stream.call(lambda i=i: seen.append(i))
    stream.record(event)
    event.synchronize()
    assert seen == list(range(100))
    assert event.query()


def test_event_happens_after_the_work_before_it(engine):
    stream, before, after = engine.create_stream(), engine.create_event(), engine.create_event()
    gate = threading.Event()
    assert before.query()  # nothing recorded
    assert before.time_us() == 0
    context = engine.create_context(profile="slow")
    y = np.zeros((1, 10), np.float32)
    stream.call(gate.wait)
    stream.record(before)
    context.enqueue({"x": np.ones_like(X), "y": y}, stream)
    stream.record(after)
    assert not before.query()
    assert not after.query()
    gate.set()
    after.synchronize()
    assert before.query()
    assert y.tolist() == [[1_000_000.0] * 10]
    # The sum takes about 1 µs per thousand elements: 10 units * 1000 repetitions.
    assert after.time_us() - before.time_us() > 100


def test_a_stream_waits_for_an_event_of_another(engine):
    first, second, event = engine.create_stream(), engine.create_stream(), engine.create_event()
    gate, seen = threading.Event(), []
    first.call(gate.wait)
    first.call(lambda: seen.append("first"))
    first.record(event)
    second.wait(event)
    second.call(lambda: seen.append("second"))
    gate.set()
    second.synchronize()
    assert seen == ["first", "second"]
    second.wait(engine.create_event())  # never recorded: no wait
    second.synchronize()


def test_a_pipeline_over_two_streams(engine):
    """Each run of the second stream takes the result of the first as its input."""
    streams = [engine.create_stream(), engine.create_stream()]
    ready = engine.create_event()
    with engine.create_context() as first, engine.create_context() as second:
        for i in range(50):
            middle, out = np.zeros_like(X), np.zeros_like(X)
            x = X + np.float32(i)
            first.enqueue({"x": x, "y": middle}, streams[0])
            streams[0].record(ready)
            streams[1].wait(ready)
            second.enqueue({"x": middle, "y": out}, streams[1])
            streams[1].synchronize()
            want = (x * np.float32(0.5) + np.float32(3)) * np.float32(0.5) + np.float32(3)
            assert np.array_equal(out, want)


def test_a_stream_runs_work_of_another_engine(engine):
    other = rt.load(plan_bytes(tiny_plans.plan()))
    stream = other.create_stream()
    with engine.create_context() as context:
        y = np.zeros_like(X)
        context.enqueue({"x": X, "y": y}, stream)
        stream.synchronize()
        assert np.array_equal(y, X * np.float32(0.5) + np.float32(3))


def test_failing_callback_is_logged_and_the_stream_goes_on(engine, caplog):
    stream, seen = engine.create_stream(), []

    def fail() -> None:
        raise RuntimeError("no")

    stream.call(fail)
    stream.call(lambda: seen.append(1))
    stream.synchronize()
    assert seen == [1]
    assert "a function called by a stream failed" in caplog.text


def test_closed_stream(engine):
    with engine.create_stream() as stream, engine.create_context() as context:
        y = np.zeros_like(X)
        context.enqueue({"x": X, "y": y}, stream)
        stream.close()
        assert y[0, 2] == 4.0  # closing finished the work
        with pytest.raises(rt.ContextBusyError, match="the stream is closed"):
            context.enqueue({"x": X, "y": y}, stream)
        stream.synchronize()
        context.execute({"x": X})


def test_several_threads_enqueue_to_one_stream(engine):
    stream, count = engine.create_stream(), []

    def enqueue() -> None:
        for i in range(300):
            stream.call(lambda: count.append(1))
            if i % 50 == 0:
                stream.synchronize()

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.synchronize()
    assert len(count) == 1200
