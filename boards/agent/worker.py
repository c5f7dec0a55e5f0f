"""The child process in which plans and candidates run: whatever they do, the agent goes on.

It reads one task as a line of JSON and answers with lines of JSON, the task's token in front, on
the descriptor that was its standard output; what native code prints goes to standard error. With
plan_tasks.py the only module of boards that uses the runtime.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boards.agent.plan_tasks import Answer, check, run
from boards.conditions import (
    conditions_text,
    read_conditions,
)

PROGRESS = struct.Struct("<iI")
"""Shared with the agent: index of the candidate at work (-1: none), and a counter."""

_RESTART_STATUS = 3
_MAX_WRITTEN_BYTES = 64 << 20  # to any one file
_PR_SET_PDEATHSIG = 1


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
    if task["task"] == "measure":
        # a candidate that chatters must not fill the disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WRITTEN_BYTES, _MAX_WRITTEN_BYTES))

    def answer(**fields: Any) -> None:
        os.write(out, f"\n{task['token']}{json.dumps(fields)}\n".encode())

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


_TASKS: Mapping[str, Callable[[Mapping[str, Any], Answer], None]] = {
    "probe": _probe,
    "measure": _measure,
    "check": check,
    "run": run,
}

if __name__ == "__main__":
    sys.exit(main())
