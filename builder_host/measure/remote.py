"""Measuring on boards at the other end of links; several equal boards share the work."""

from __future__ import annotations

import collections
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from boards.errors import BoardError, CommandFailedError, LinkLostError
from boards.link.client import LinkOptions
from boards.link.file_transfer import BUSY_WAIT_S, BoardLink, fetch_file, send_to_cache
from boards.link.key_file import read_link_key
from boards.link.messages import Message
from boards.store.pieces import plan_edges
from builder_host.emit.verification import only_profile
from builder_host.errors import MeasureError, TargetError
from builder_host.measure.base import MeasureJob, PlanTrial
from builder_host.measure.bundle import bundle_pieces
from builder_host.network.network import NUMPY_OF_DTYPE
from builder_host.tune.timing_cache import Timing
from planformat.fingerprint import DeviceFingerprint, compare, describe_differences
from planformat.plan import Plan
from planformat.writer import plan_bytes

log = logging.getLogger(__name__)

BATCH_JOBS = 32  # candidates per bundle: enough to fill a line, few enough to share between boards
MAX_LOSSES = 2  # of the link, without a result in between
_MEASURE_TIMEOUT_S = 24 * 3600.0  # lost links and slow candidates end a call much earlier
_PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class BoardOptions:
    """How boards are used.

    Attributes:
        key: secret of the links, None for none.
        patience_s: how long a lost board is looked for.
        candidate_s: longest time that one run of a candidate may take.
    """

    key: bytes | None = None
    patience_s: float = 60.0
    candidate_s: float = 20.0


class RemoteBoards:
    """One or more boards of the same kind as one measuring device. Close it after use.

    Attributes:
        device: that is used on every board: `cpu` or `cuda:N`.
        fingerprint: of that device.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        options: BoardOptions,
        progress: Callable[[str, int, int], None],
        *,
        device: str | None = None,
    ) -> None:
        """Connect and probe.

        Args:
            addresses: of links, at least one.
            options: for all of them.
            progress: called with phase, items done, items in all.
            device: None: the first GPU of the first board if it has one, else its CPU.

        Raises:
            BoardError: a board cannot be reached.
            MeasureError: the boards differ.
        """
        self._options = options
        self._progress = progress
        self._lock = threading.Lock()
        self._flush_bytes = 0
        self._support = b""
        self._links = [
            BoardLink(address, LinkOptions(options.key), patience_s=options.patience_s)
            for address in addresses
        ]
        try:
            self.device = device or _first_device(self._links[0])
            fingerprints = [_probe(link, self.device) for link in self._links]
        except BaseException:
            self.close()
            raise
        self.fingerprint = fingerprints[0]
        for link, other in zip(self._links[1:], fingerprints[1:], strict=True):
            differences = compare(self.fingerprint, other) or compare(other, self.fingerprint)
            if differences:
                self.close()
                raise MeasureError(
                    f"{link.address} is another device than {self._links[0].address}, their "
                    f"timings cannot be mixed:\n{describe_differences(differences)}"
                )

    def prepare(self, *, flush_bytes: int, support: bytes) -> None:
        """Say how candidates are timed: caches overwritten, and the CPU's support code."""
        self._flush_bytes = flush_bytes
        self._support = support

    def measure(self, jobs: Sequence[MeasureJob], num_workers: int) -> list[Timing]:
        """Time every job, see `Measurer`. Boards that are lost leave their work to the others.

        Raises:
            MeasureError: no board is left.
        """
        results: dict[int, Timing] = {}
        share = -(-len(jobs) // (2 * len(self._links)))  # two turns for each board
        queue = collections.deque(_batches(jobs, min(BATCH_JOBS, share)))
        failures: list[str] = []
        changed = threading.Condition(self._lock)
        num_at_work = 0

        def record(index: int, timing: Timing) -> None:
            with self._lock:
                results[index] = timing
                self._progress("measure", len(results), len(jobs))

        def take() -> list[int] | None:
            """The next batch; waits for those at work, whose board may be lost."""
            nonlocal num_at_work
            with changed:
                while not queue and num_at_work:
                    changed.wait()
                if not queue:
                    return None
                num_at_work += 1
                return queue.popleft()

        def give_back(batch: Sequence[int], failure: str) -> None:
            """The end of a batch: what has no result is for the other boards."""
            nonlocal num_at_work
            with changed:
                num_at_work -= 1
                if failure:
                    failures.append(failure)
                left = [index for index in batch if index not in results]
                if left:
                    queue.appendleft(left)
                changed.notify_all()

        def work(link: BoardLink) -> None:
            while (batch := take()) is not None:
                failure = ""
                try:
                    _Batch(self, link, batch, jobs, num_workers, record).run()
                except BoardError as error:
                    log.warning("%s", error)
                    failure = str(error)
                except Exception as error:
                    log.exception("measuring on %s failed", link.address)
                    failure = f"{link.address}: {error!r}"
                give_back(batch, failure)
                if failure:
                    return

        threads = [
            threading.Thread(target=work, args=(link,), name=f"measure {link.address}")
            for link in self._links
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(results) < len(jobs):
            raise MeasureError(
                f"{len(results)} of {len(jobs)} candidates were timed, then no board was left: "
                + "; ".join(failures)
            )
        return [results[index] for index in range(len(jobs))]

    def try_plan(self, plan: Plan, seed: int, is_timed: Sequence[bool]) -> list[PlanTrial]:
        """See `PlanDevice`; on the first board, which runs the first profile of what it is sent."""
        return [
            self._try_profile(only_profile(plan, index), seed, timed)
            for index, timed in enumerate(is_timed)
        ]

    def _try_profile(self, plan: Plan, seed: int, is_timed: bool) -> PlanTrial:
        answer = self._run(plan, {"canary_seed": seed, "time": is_timed})
        rows = [
            (binding.name, np.dtype(NUMPY_OF_DTYPE[binding.dtype]), shape)
            for binding, shape in zip(
                plan.bindings, plan.variants[0].profiles[0].shapes, strict=True
            )
            if not binding.is_input
        ]
        size_bytes = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in rows)
        if answer.fields.get("size") != size_bytes:
            raise MeasureError(
                f"{self._links[0].address}: gave outputs of {answer.fields.get('size')!r} bytes, "
                f"the plan has {size_bytes:,}; is edgeplan of one version on both ends?"
            )
        data = fetch_file(self._links[0], str(answer.fields.get("sha256")), size_bytes)
        outputs: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, dtype, shape in rows:
            count = math.prod(shape)
            outputs[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
        timing = None
        if is_timed:
            row = answer.fields["latency"]
            timing = _timing([0, *row, ""], answer.fields["conditions"])
        return PlanTrial(outputs, timing)

    def close(self) -> None:
        """Give the links back."""
        for link in self._links:
            link.close()

    def bundle(self, jobs: Sequence[MeasureJob], num_workers: int) -> tuple[bytes, tuple[int, ...]]:
        """A bundle for the boards; see `bundle_pieces`."""
        return bundle_pieces(
            jobs,
            fingerprint=self.fingerprint,
            num_workers=num_workers,
            flush_bytes=self._flush_bytes,
            support=self._support,
        )

    @property
    def candidate_s(self) -> float:
        """Longest time that one run of a candidate may take."""
        return self._options.candidate_s

    def _run(self, plan: Plan, fields: Mapping[str, Any]) -> Message:
        link = self._links[0]
        data = plan_bytes(plan)
        while True:
            sending = send_to_cache(link, data, plan_edges(memoryview(data), "(built)"))
            try:
                return link.client.call(
                    "run", {"plan": sending.sha256, "inputs": {}, **fields}, timeout_s=600
                )
            except LinkLostError as error:
                link.again(error)


def open_boards(
    addresses: Sequence[str],
    link_key: str | os.PathLike[str] | None,
    progress: Callable[[str, int, int], None],
    stated: DeviceFingerprint | None,
    target: str,
) -> RemoteBoards:
    """Connect to boards and compare them with what the user calls the target.

    Args:
        addresses: of the links.
        link_key: key file, or None.
        progress: as in `RemoteBoards`.
        stated: fingerprint of the named target, None: whatever the board is.
        target: its name, for messages.

    Raises:
        TargetError: the board is another device; BoardError: it cannot be reached.
    """
    key = read_link_key(link_key) if link_key is not None else None
    device = None
    if stated is not None:
        device = "cuda:0" if stated.device_kind == "cuda" else "cpu"
    boards = RemoteBoards(addresses, BoardOptions(key), progress, device=device)
    differences = compare(stated, boards.fingerprint) if stated is not None else ()
    if differences:
        boards.close()
        raise TargetError(
            f"{addresses[0]} is not the target '{target}':\n{describe_differences(differences)}"
        )
    return boards


class _Batch:
    """Some candidates on one board, until all have a result."""

    def __init__(
        self,
        boards: RemoteBoards,
        link: BoardLink,
        indices: Sequence[int],
        jobs: Sequence[MeasureJob],
        num_workers: int,
        record: Callable[[int, Timing], None],
    ) -> None:
        self._boards = boards
        self._link = link
        self._indices = indices
        self._jobs = [jobs[index] for index in indices]
        self._num_workers = num_workers
        self._record = record
        self._done: set[int] = set()

    def run(self) -> None:
        data, edges = self._boards.bundle(self._jobs, self._num_workers)
        num_losses = 0
        while len(self._done) < len(self._jobs):
            sending = send_to_cache(self._link, data, edges)
            num_done = len(self._done)
            # a candidate may bring down the whole board: then they run one by one
            suspects = [self._first_open()] if num_losses >= MAX_LOSSES else None
            try:
                self._call(sending.sha256, suspects)
            except LinkLostError as error:
                num_losses = 1 + (num_losses if len(self._done) == num_done else 0)
                self._link.again(error)
                if suspects and suspects[0] not in self._done:
                    self._finish(suspects[0], Timing(None, error="the board was lost meanwhile"))
                continue
            if len(self._done) == num_done:
                raise CommandFailedError(
                    f"{self._link.address}: says that it is done, {num_done} of "
                    f"{len(self._jobs)} candidates have results"
                )

    def _call(self, sha256: str, suspects: Sequence[int] | None) -> None:
        skip = self._done
        if suspects is not None:
            skip = set(range(len(self._jobs))) - set(suspects)
        busy_until = time.monotonic() + BUSY_WAIT_S
        fields = {
            "sha256": sha256,
            "device": self._boards.device,
            "candidate_s": self._boards.candidate_s,
            "skip": sorted(skip),
        }
        while True:
            try:
                self._link.client.call(
                    "measure", fields, timeout_s=_MEASURE_TIMEOUT_S, notice=self._on_notice
                )
                return
            except CommandFailedError as error:
                if error.code != "busy" or time.monotonic() > busy_until:
                    raise
                time.sleep(1.0)

    def _first_open(self) -> int:
        return next(i for i in range(len(self._jobs)) if i not in self._done)

    def _finish(self, position: int, timing: Timing) -> None:
        self._done.add(position)
        self._record(self._indices[position], timing)

    def _on_notice(self, message: Message) -> None:
        for row in message.fields.get("results", ()):
            position = row[0]
            if type(position) is not int or not 0 <= position < len(self._jobs):
                raise ValueError(f"candidate {position!r} of {len(self._jobs)}")
            if position not in self._done:
                self._finish(position, _timing(row, message.fields.get("conditions", "")))


def _first_device(link: BoardLink) -> str:
    """The first GPU if the board has one that can be used, else the CPU."""
    try:
        link.call("probe", {"device": "cuda:0"}, timeout_s=_PROBE_TIMEOUT_S)
        return "cuda:0"
    except CommandFailedError as error:
        log.info("%s: no GPU is used: %s", link.address, error)
        return "cpu"


def _probe(link: BoardLink, device: str) -> DeviceFingerprint:
    fields = link.call("probe", {"device": device}, timeout_s=_PROBE_TIMEOUT_S).fields
    kind, facts = fields.get("device_kind"), fields.get("fields")
    if kind not in ("cpu", "cuda") or not isinstance(facts, dict):
        raise MeasureError(f"{link.address}: its fingerprint cannot be read: {fields!r:.200}")
    return DeviceFingerprint(str(kind), {str(k): str(v) for k, v in facts.items()})


def _batches(jobs: Sequence[MeasureJob], num_jobs: int) -> list[list[int]]:
    """Positions of jobs: whole groups, about num_jobs at once."""
    groups: dict[int, list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(job.group, []).append(index)
    batches: list[list[int]] = []
    for members in groups.values():
        if not batches or len(batches[-1]) + len(members) > num_jobs:
            batches.append([])
        batches[-1].extend(members)
    return batches


def _timing(row: Sequence[Any], conditions: Any) -> Timing:
    """A timing from what a board says, which is checked.

    Raises:
        ValueError: it cannot be a timing.
    """
    _, median_us, p20_us, p80_us, num_repeats, error = row
    for value in (median_us, p20_us, p80_us):
        if value is not None and not (type(value) in (int, float) and 0 <= value < 1e12):
            raise ValueError(f"{value!r} is no time in microseconds")
    if type(num_repeats) is not int or num_repeats < 0 or not isinstance(error, str):
        raise ValueError(f"{row!r} is no result")
    if (median_us is None) != bool(error):
        raise ValueError(f"{row!r} has a time and an error, or neither")
    timing = Timing(median_us, p20_us, p80_us, num_repeats, error[:2000])
    return replace(timing, observed=str(conditions)[:500])
