"""The child process in which plans and candidates run: whatever they do, the agent goes on.

It reads one task as a line of JSON and answers with lines of JSON on the descriptor that was its
standard output; what native code prints goes to standard error. The one module of boards that uses
the runtime.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import statistics
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boards.conditions import (
    available_memory_bytes,
    conditions_text,
    parse_conditions,
    read_conditions,
    slow_causes,
)

PROGRESS = struct.Struct("<iI")
"""Shared with the agent: index of the candidate at work (-1: none), and a counter."""

_LATENCY_RUNS = 50
_LATENCY_BUDGET_S = 2.0
_LATENCY_MARGIN = 0.10  # more than this off the build's record is worth a word
_RESTART_STATUS = 3
_PR_SET_PDEATHSIG = 1

Answer = Callable[..., None]


def main() -> int:
    """Do the task on standard input. Returns the exit status."""
    out = os.dup(1)
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    _end_with_the_agent()
    _give_way_to_the_agent()
    if task.get("memory_bytes"):
        # address space: GPU drivers reserve far more than they use, so only CPU tasks get a limit
        resource.setrlimit(resource.RLIMIT_AS, (task["memory_bytes"], task["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def answer(**fields: Any) -> None:
        os.write(out, json.dumps(fields).encode() + b"\n")

    try:
        _TASKS[task["task"]](task, answer)
    except MemoryError:
        answer(error="memory: the task needs more than it may have", code="memory")
        return 1
    except Exception as error:
        from runtime_edge.cli import is_user_error

        if is_user_error(error) or isinstance(error, (KeyError, ValueError)):
            answer(error=str(error), code=_code_of(error))
        else:
            answer(error=f"{type(error).__name__}: {error}", code="defect")
            raise
        return 1
    return 0


def _end_with_the_agent() -> None:
    """A candidate that loops shall not outlive an agent that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:  # it was killed before this
        sys.exit(1)


def _give_way_to_the_agent() -> None:
    """When memory runs out, the kernel shall end this process and not the agent."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return  # not allowed in this container: the agent's own limit remains


def _code_of(error: Exception) -> str:
    return {
        "PlanSignatureError": "signature",
        "PlanFormatError": "damaged",
        "PlanVersionError": "version",
        "FingerprintMismatchError": "fingerprint",
        "CanaryError": "canary",
    }.get(type(error).__name__, "failed")


def _probe(task: Mapping[str, Any], answer: Answer) -> None:
    """Fingerprint of a device."""
    from runtime_edge.device.select import open_device

    fingerprint = open_device(task["device"]).probe()
    answer(device_kind=fingerprint.device_kind, fields=dict(fingerprint.fields))


# --- measuring ---------------------------------------------------------------------------


def _measure(task: Mapping[str, Any], answer: Answer) -> None:
    """Time the candidates of a tuning bundle, group by group."""
    from planformat.fingerprint import compare, describe_differences
    from runtime_edge.bundle import read_bundle
    from runtime_edge.device.select import open_device
    from runtime_edge.errors import DeviceError
    from runtime_edge.tuning import TuneResult, tune

    bundle = read_bundle(task["path"])
    kind = bundle.fingerprint.device_kind
    live = open_device(task["device"] or kind).probe()
    differences = compare(bundle.fingerprint, live, allow=task["allow"])
    if differences:
        answer(
            error=f"the candidates are for another device:\n{describe_differences(differences)}",
            code="fingerprint",
        )
        return
    skipped = set(task["skip"])
    groups: dict[int, list[int]] = {}
    for index, job in enumerate(bundle.jobs):
        if index not in skipped:
            groups.setdefault(job.group, []).append(index)
    device = _watched_device(task, bundle, answer)
    for members in groups.values():
        device.indices = {id(bundle.jobs[index]): index for index in members}
        try:
            results = tune(device, [bundle.jobs[index] for index in members])
        except (DeviceError, MemoryError) as error:  # no memory for the group's buffers
            results = [TuneResult(None, error=str(error) or "out of memory")] * len(members)
        device.idle()
        answer(
            results=[
                [index, r.median_us, r.p20_us, r.p80_us, r.num_repeats, r.error[:2000]]
                for index, r in zip(members, results, strict=True)
            ],
            conditions=conditions_text(read_conditions()),
        )
    answer(done=True)


def _watched_device(task: Mapping[str, Any], bundle: Any, answer: Answer) -> _WatchedDevice:
    from runtime_edge.device.select import parse_device

    with open(task["progress"], "r+b") as file:
        progress = mmap.mmap(file.fileno(), PROGRESS.size)
    kind, number = parse_device(task["device"] or bundle.fingerprint.device_kind)
    device: Any
    if kind == "cpu":
        from runtime_edge.tuning import CpuTuneDevice

        device = CpuTuneDevice(
            bundle.support, num_workers=bundle.num_workers, flush_bytes=bundle.flush_bytes
        )
    else:
        from runtime_edge.tuning_cuda import CudaTuneDevice

        device = CudaTuneDevice(number, is_flushing=bundle.flush_bytes > 0)
    return _WatchedDevice(device, progress, answer, is_poisoned_by_faults=kind == "cuda")


class _WatchedDevice:
    """Tells the agent, through shared memory, which candidate is at work."""

    def __init__(
        self, device: Any, progress: mmap.mmap, answer: Answer, *, is_poisoned_by_faults: bool
    ) -> None:
        self.indices: dict[int, int] = {}
        self.answer = answer
        self.is_poisoned_by_faults = is_poisoned_by_faults
        self._device = device
        self._progress = progress
        self._count = 0

    def buffers(self, sizes: Sequence[int]) -> list[int]:
        self.idle()
        addresses: list[int] = self._device.buffers(sizes)
        return addresses

    def timer(self, job: Any, addresses: Sequence[int]) -> _WatchedTimer:
        index = self.indices[id(job)]
        self.at(index)
        return _WatchedTimer(self, index, self._device.timer(job, addresses))

    def at(self, index: int) -> None:
        self._count = (self._count + 1) & 0xFFFFFFFF
        self._progress[:] = PROGRESS.pack(index, self._count)

    def idle(self) -> None:
        self.at(-1)


class _WatchedTimer:
    def __init__(self, owner: _WatchedDevice, index: int, timer: Any) -> None:
        self._owner = owner
        self._index = index
        self._timer = timer

    def measure(self, repeats: int) -> list[float]:
        from runtime_edge.errors import DeviceError

        self._owner.at(self._index)
        try:
            times: list[float] = self._timer.measure(repeats)
        except DeviceError as error:
            if self._owner.is_poisoned_by_faults:
                # after a fault every later call of this process fails too
                self._owner.answer(failed=self._index, reason=str(error)[:2000])
                os._exit(_RESTART_STATUS)
            raise
        return times

    def close(self) -> None:
        self._timer.close()


# --- plans -------------------------------------------------------------------------------


def _check(task: Mapping[str, Any], answer: Answer) -> None:
    """Everything that must hold before a plan may become active; see PROTOCOL.md."""
    from planformat.fingerprint import select_match
    from planformat.reader import open_plan
    from planformat.release import release_of
    from runtime_edge.device.select import choose_device
    from runtime_edge.engine import load

    public_key = bytes.fromhex(task["public_key"]) if task["public_key"] else None
    allow, source = task["allow"], task["source"]
    with open_plan(task["path"], public_key=public_key) as opened:
        plan = opened.plan
        release = release_of(plan)
        answer(step="hashes" if public_key is None else "hashes and signature")
        device = choose_device(plan, None, allow=allow, source=source)
        fingerprints = [variant.fingerprint for variant in plan.variants]
        index = select_match(fingerprints, device.probe(), allow=allow, source=source)
        answer(step="fingerprint")
        largest = max(
            profile.arena_bytes
            + profile.num_workers
            * max((s.scratch_bytes_per_worker for s in profile.steps), default=0)
            for profile in plan.variants[index].profiles
        )
        needed = len(plan.weights) + largest
        conditions = plan.provenance.get("conditions", "")
        del plan
    available = _available_bytes(device)
    if available is not None and needed > available:
        answer(
            error=f"needs {needed:,} bytes of memory (weights, and the largest context of one "
            f"user), {available:,} are available; stop something, or build a smaller profile",
            code="memory",
        )
        return
    answer(step="memory")
    engine = load(task["path"], public_key=public_key, allow=allow)
    try:
        report = engine.canary_report
        answer(step="canary" if report is not None else "loads (the plan holds no canary)")
        notes = [] if report is not None else ["the plan holds no canary; nothing was compared"]
        built_us = report.built_latency_us if report is not None else None
        checked_us = _latency_us(engine, report.profile if report is not None else None)[0]
        notes += _latency_notes(checked_us, built_us, conditions)
        answer(
            network=engine.name,
            number=release.number,
            expires=release.expires,
            built_us=built_us,
            checked_us=checked_us,
            needed_bytes=needed,
            notes=notes,
            conditions=conditions_text(read_conditions()),
        )
    finally:
        engine.close()


def _available_bytes(device: Any) -> int | None:
    """Memory that a plan may take: of the device, which on integrated GPUs is the system's."""
    limits = [available_memory_bytes()]
    if device.kind == "cuda":
        limits.append(device.free_memory()[0])
    return min((limit for limit in limits if limit is not None), default=None)


def _latency_us(engine: Any, profile: str | None = None) -> tuple[float, float, float, int]:
    """Median, 20th and 80th percentile and number of whole inferences of a profile, warm."""
    from planformat.canary import canary_input
    from planformat.tensors import storage_elems
    from runtime_edge.memory import ALIGNMENT_BYTES

    device = engine.device
    addresses: dict[str, int] = {}
    times: list[float] = []
    with engine.create_stream() as stream, engine.create_context(profile=profile) as context:
        for number, (binding, shape) in enumerate(
            zip(engine.bindings, context.profile.shapes, strict=True)
        ):
            count = storage_elems(shape, binding.format)
            address = device.allocate(count * binding.dtype.size_bytes, ALIGNMENT_BYTES)
            addresses[binding.name] = address
            if binding.is_input:
                device.write(address, canary_input(1, number, count, binding.dtype))
        end = time.perf_counter() + _LATENCY_BUDGET_S
        for run in range(_LATENCY_RUNS + 2):
            start = time.perf_counter_ns()
            context.enqueue(addresses, stream)
            stream.synchronize()
            if run >= 2 or time.perf_counter() > end:
                times.append((time.perf_counter_ns() - start) / 1000)
            if time.perf_counter() > end:
                break
    for address in addresses.values():
        device.free(address)
    times.sort()
    last = len(times) - 1
    return (
        round(statistics.median(times), 3),
        round(times[int(0.2 * last)], 3),
        round(times[int(0.8 * last)], 3),
        len(times),
    )


def _latency_notes(checked_us: float, built_us: float | None, built: str) -> list[str]:
    if not built_us:
        return ["the plan records no latency; build it with timings of this device to compare"]
    ratio = checked_us / built_us
    if abs(ratio - 1) <= _LATENCY_MARGIN:
        return []
    text = f"latency is {checked_us:,.1f} µs, {ratio:.2f} times the {built_us:,.1f} µs at build"
    if ratio < 1:
        return [f"{text}: the build's machine was busier or slower clocked"]
    causes = slow_causes(read_conditions(), parse_conditions(built))
    return [f"{text}; likely: {cause}" for cause in causes] or [
        f"{text}; clocks, heat and load look normal here: compare with 'edgeplan bench --steps'"
    ]


def _run(task: Mapping[str, Any], answer: Answer) -> None:
    """One inference on given inputs; outputs are written beside each other into one file."""
    from planformat.tensors import storage_bytes
    from runtime_edge.engine import load
    from runtime_edge.memory import ALIGNMENT_BYTES

    public_key = bytes.fromhex(task["public_key"]) if task["public_key"] else None
    with load(
        task["path"], public_key=public_key, allow=task["allow"], canary=task["canary"]
    ) as engine:
        device = engine.device
        addresses: dict[str, int] = {}
        rows: list[dict[str, Any]] = []
        with engine.create_stream() as stream, engine.create_context() as context:
            shapes = context.profile.shapes
            for binding, shape in zip(engine.bindings, shapes, strict=True):
                size = storage_bytes(shape, binding.dtype, binding.format)
                address = device.allocate(size, ALIGNMENT_BYTES)
                addresses[binding.name] = address
                if binding.is_input:
                    device.write(address, _input_bytes(task, binding, len(addresses) - 1, shape))
                else:
                    rows.append(
                        {
                            "name": binding.name,
                            "bytes": size,
                            "dtype": binding.dtype.name.lower(),
                            "shape": list(shape),
                        }
                    )
            start = time.perf_counter_ns()
            context.enqueue(addresses, stream)
            stream.synchronize()
            elapsed_us = (time.perf_counter_ns() - start) / 1000
            with open(task["output"], "wb") as file:
                for row in rows:
                    file.write(device.read(addresses[row["name"]], row["bytes"]))
        for address in addresses.values():
            device.free(address)
        latency = _latency_us(engine) if task["time"] else None
    answer(
        outputs=rows,
        time_us=round(elapsed_us, 1),
        latency=latency,
        conditions=conditions_text(read_conditions()),
    )


def _input_bytes(
    task: Mapping[str, Any], binding: Any, index: int, shape: tuple[int, ...]
) -> bytes:
    """What the host sent for an input, or the canary's values."""
    from planformat.canary import canary_input
    from planformat.tensors import storage_bytes, storage_elems

    if task["canary_seed"] is not None:
        count = storage_elems(shape, binding.format)
        return canary_input(task["canary_seed"], index, count, binding.dtype)
    inputs: Mapping[str, str] = task["inputs"]
    if binding.name not in inputs:
        known = ", ".join(inputs) or "none"
        raise ValueError(f"input '{binding.name}' is missing; given are {known}")
    size = storage_bytes(shape, binding.dtype, binding.format)
    data = Path(inputs[binding.name]).read_bytes()
    if len(data) != size:
        raise ValueError(f"input '{binding.name}' has {len(data):,} bytes, the plan takes {size:,}")
    return data


_TASKS: Mapping[str, Callable[[Mapping[str, Any], Answer], None]] = {
    "probe": _probe,
    "measure": _measure,
    "check": _check,
    "run": _run,
}

if __name__ == "__main__":
    sys.exit(main())
