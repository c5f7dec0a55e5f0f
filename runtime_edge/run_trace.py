"""A trace of a plan's inferences: streams side by side, then the steps within an inference.

The lanes of the streams hold inferences as they run. Steps are timed in further inferences, with a
barrier after each, in a lane of their own: within a stream they overlap and have no times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from planformat.details import OperationDetails, plan_details
from planformat.plan import Profile
from runtime_edge.context import ExecutionContext, TimedRun
from runtime_edge.device.base import Stream
from runtime_edge.device_bindings import DeviceBindings
from runtime_edge.engine import Engine
from runtime_edge.trace_events import Event, document, lane, span

MAX_RUNS = 10_000
_STEPS_LANE = 1
_FIRST_STREAM_LANE = 2

Fill = Callable[[DeviceBindings], None]
_Moments = tuple[int, int, int]  # enqueue begins, enqueue ends, synchronize ends


def trace_runs(
    engine: Engine,
    profile: str | None = None,
    *,
    fill: Fill,
    num_streams: int = 1,
    num_runs: int = 10,
) -> dict[str, Any]:
    """Run inferences and write down when each, and each of its steps, ran.

    Args:
        engine: loaded plan.
        profile: name; None is the first.
        fill: writes the inputs into the bindings of each stream.
        num_streams: at once, each with a context and bindings of its own.
        num_runs: inferences per stream, and again as many with timed steps; 1 to `MAX_RUNS`.

    Returns:
        A document of the Chrome trace format, as `json.dumps` takes it.

    Raises:
        ValueError: num_runs is out of range.
        RuntimeEdgeError: an inference failed.
    """
    if not 1 <= num_runs <= MAX_RUNS:
        raise ValueError(f"num_runs is {num_runs}, allowed are 1 to {MAX_RUNS:,}")
    with ExitStack() as stack:
        contexts, places, streams = [], [], []
        for _ in range(num_streams):
            streams.append(stack.enter_context(engine.create_stream()))
            places.append(stack.enter_context(DeviceBindings(engine, profile)))
            # Closed before the memory goes that its work may still use.
            contexts.append(stack.enter_context(engine.create_context(profile=profile)))
            fill(places[-1])
        moments = _run_streams(contexts, places, streams, num_runs)
        timed = contexts[0].timed_runs(places[0].addresses, repeats=num_runs)
    events = [lane("steps, a barrier after each", _STEPS_LANE)]
    for number, rows in enumerate(moments):
        thread = _FIRST_STREAM_LANE + number
        events.append(lane(f"stream {number}", thread))
        for run, (start, enqueued, done) in enumerate(rows):
            events.append(span(f"inference {run}", "inference", thread, start, done - start))
            events.append(span("enqueue", "host", thread, start, enqueued - start))
    return document(events + _step_events(engine, engine.profile(profile), timed))


def _run_streams(
    contexts: Sequence[ExecutionContext],
    places: Sequence[DeviceBindings],
    streams: Sequence[Stream],
    num_runs: int,
) -> list[list[_Moments]]:
    found: list[list[_Moments]] = [[] for _ in contexts]
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(contexts))
    is_over = threading.Event()  # set by the first that fails or is interrupted

    def work(number: int) -> None:
        context, stream = contexts[number], streams[number]
        addresses = places[number].addresses
        try:
            context.enqueue(addresses, stream)  # warm, and not written down
            stream.synchronize()
            barrier.wait()
            for _ in range(num_runs):
                if is_over.is_set():
                    break
                start = time.perf_counter_ns()
                context.enqueue(addresses, stream)
                enqueued = time.perf_counter_ns()
                stream.synchronize()
                found[number].append((start, enqueued, time.perf_counter_ns()))
        except BaseException as error:
            errors.append(error)
            is_over.set()
            barrier.abort()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, len(contexts))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return found


def _step_events(engine: Engine, profile: Profile, timed: Sequence[TimedRun]) -> list[Event]:
    facts = [_facts(engine, profile, index) for index in range(len(profile.steps))]
    by_step = _operations(engine, profile)
    for index, operation in by_step.items():
        facts[index] |= {
            "precision": ", ".join(_element_type(tensor.layout) for tensor in operation.outputs),
            "bytes": sum(t.num_bytes for t in (*operation.inputs, *operation.outputs)),
            "kind": operation.kind,
            "operations": operation.num_operations,
        }
    events = []
    for number, run in enumerate(timed):
        events.append(
            span(
                f"inference {number}",
                "inference",
                _STEPS_LANE,
                run.start_ns,
                max(run.end_ns - run.start_ns, sum(run.steps_us) * 1e3),
            )
        )
        at = float(run.start_ns)
        for step, time_us, told in zip(profile.steps, run.steps_us, facts, strict=True):
            events.append(span(step.name, "step", _STEPS_LANE, at, time_us * 1e3, told))
            at += time_us * 1e3
    return events


def _facts(engine: Engine, profile: Profile, index: int) -> dict[str, Any]:
    step = profile.steps[index]
    variant = engine.plan.variants[engine.variant_index]
    found: dict[str, Any] = {
        "step": index,
        "symbol": variant.kernels[step.kernel].symbol,
        "tactic": step.tactic,
    }
    if step.measured_us is not None:
        found["built_us"] = step.measured_us
    return found


def _operations(engine: Engine, profile: Profile) -> dict[int, OperationDetails]:
    """What the plan tells of the operation of each step; empty where it tells nothing."""
    details = plan_details(engine.plan, source=engine.name)
    if details is None:
        return {}
    own = next(p for p in details.variants[engine.variant_index] if p.name == profile.name)
    return {index: operation for operation in own.operations for index in operation.steps}


def _element_type(layout: str) -> str:
    """`f16` of `1x64x56x56:f16:NHWC`."""
    return layout.split(":")[1].partition("@")[0] if ":" in layout else layout
