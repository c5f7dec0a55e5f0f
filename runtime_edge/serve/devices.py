"""Devices in use: their streams, their memory, and the plans that are loaded on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from planformat.errors import PlanError
from planformat.fingerprint import DeviceFingerprint, select_match
from planformat.reader import OpenPlan, open_plan
from planformat.signing import load_public_key
from runtime_edge.device.base import Device
from runtime_edge.device.select import choose_device
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.serve.config import PlanConfig
from runtime_edge.serve.deployment import Deployment
from runtime_edge.serve.errors import MemoryBudgetError, ServeError
from runtime_edge.serve.memory_report import (
    DeviceTotals,
    MemoryNeeds,
    PlanRow,
    available_bytes,
    memory_needs,
    totals,
)
from runtime_edge.serve.stream_memory import StreamMemory
from runtime_edge.serve.stream_worker import StreamWorker

_log = logging.getLogger(__name__)

LOAD_ERRORS = (PlanError, RuntimeEdgeError, ServeError, OSError)
"""Why a plan may not load; anything else is a defect."""


@dataclass
class DeviceEntry:
    """A device, its memory budget and its streams."""

    name: str
    device: Device
    fingerprint: DeviceFingerprint
    available_bytes: int | None
    streams: dict[str, StreamWorker] = field(default_factory=dict)


class Devices:
    """All devices in use.

    Plans are loaded and closed on one thread, the loader's: two loads at once could each think
    that the memory left is theirs. The rest may be asked from any thread.
    """

    def __init__(
        self, make_worker: Callable[[str, StreamMemory], StreamWorker], budget_bytes: int
    ) -> None:
        """None in use.

        Args:
            make_worker: starts the thread of a stream.
            budget_bytes: of device memory per device; 0 asks the device.
        """
        self._make_worker = make_worker
        self._budget_bytes = budget_bytes
        self._entries: dict[str, DeviceEntry] = {}
        self._live: dict[Deployment, StreamWorker] = {}  # those whose memory is taken

    @property
    def entries(self) -> list[DeviceEntry]:
        """Those in use, in the order in which they came."""
        return list(self._entries.values())

    @property
    def workers(self) -> list[StreamWorker]:
        """Of all streams."""
        return [worker for entry in self.entries for worker in list(entry.streams.values())]

    @property
    def lost(self) -> list[str]:
        """Names of those that met an error after which only a new process can use them."""
        return [
            entry.name
            for entry in self.entries
            if getattr(getattr(entry.device, "context", None), "is_dead", False)
        ]

    def used_bytes(self, entry: DeviceEntry) -> dict[str, int]:
        """Device memory that is taken, by purpose."""
        regions = [worker.memory for worker in list(entry.streams.values())]
        return {
            "weights": sum(
                d.needs.weights for d in list(self._live) if d.engine.device is entry.device
            ),
            "arena": sum(m.arena.nbytes for m in regions if m.arena is not None),
            "io": sum(m.io.nbytes for m in regions if m.io is not None),
        }

    def worker_of(self, deployment: Deployment) -> StreamWorker | None:
        """The stream on which a deployment runs; None when it is closed."""
        return self._live.get(deployment)

    def add(self, entry: DeviceEntry) -> DeviceEntry:
        """Use one more device."""
        self._entries[entry.name] = entry
        return entry

    def report(self, configs: Iterable[PlanConfig]) -> tuple[list[PlanRow], list[DeviceTotals]]:
        """Memory of configured plans, from their files; loads no code and no weights."""
        rows = []
        for config in configs:
            try:
                opened = _open(config)
                try:
                    entry = self._entry_for(opened, config)
                    needs = self._needs(opened, config, entry)
                finally:
                    opened.close()
                rows.append(PlanRow(config.name, entry.name, config.stream, needs))
            except LOAD_ERRORS as error:
                empty = MemoryNeeds(0, 0, 0)
                rows.append(PlanRow(config.name, config.device, config.stream, empty, str(error)))
        return rows, totals(rows, {entry.name: entry.available_bytes for entry in self.entries})

    def load(self, config: PlanConfig, generation: int) -> tuple[Deployment, StreamWorker]:
        """Load a plan and warm it up on its stream, between batches.

        Raises:
            PlanError, RuntimeEdgeError, ServeError, OSError: why it cannot be used.
        """
        opened = _open(config)
        try:
            entry = self._entry_for(opened, config)
            worker = entry.streams.get(config.stream)
            if worker is None:
                worker = self._make_worker(
                    f"{entry.name}/{config.stream}", StreamMemory(entry.device)
                )
                entry.streams[config.stream] = worker
            self._check_budget(self._needs(opened, config, entry), config, entry, worker)
        except BaseException:
            opened.close()
            raise
        deployment = Deployment(config, opened, entry.device, worker.memory, generation)
        try:
            deployment.warm_up(partial(worker.call, is_inference=True))
        except BaseException:
            worker.call(deployment.close)
            raise
        self._live[deployment] = worker
        return deployment, worker

    def close(self, deployment: Deployment) -> None:
        """Close a deployment between two batches of its stream, where nothing can be using it."""
        self._live.pop(deployment).call(deployment.close)

    def close_all(self) -> None:
        """Close all deployments and streams; nothing may be running."""
        for deployment in list(self._live):
            try:
                self.close(deployment)
            except RuntimeEdgeError as error:  # a lost device takes nothing back
                _log.error("plan %s cannot be closed: %s", deployment.config.name, error)
        for worker in self.workers:
            worker.close()

    def _check_budget(
        self, needs: MemoryNeeds, config: PlanConfig, entry: DeviceEntry, worker: StreamWorker
    ) -> None:
        used = self.used_bytes(entry)
        extra = needs.weights + worker.memory.missing_bytes(needs)
        total = sum(used.values())
        if entry.available_bytes is None or total + extra <= entry.available_bytes:
            return
        raise MemoryBudgetError(
            f"plan {config.path}: needs {extra:,} bytes more on {entry.name} (weights "
            f"{needs.weights:,}, arena {needs.arena:,}, bindings {needs.io:,}, of which the stream "
            f"'{config.stream}' has {needs.weights + needs.arena + needs.io - extra:,} already); "
            f"taken are {total:,} of {entry.available_bytes:,} bytes. Serve fewer plans, put it on "
            "a stream whose arena it can share, or raise device_memory_bytes"
        )

    def _needs(self, opened: OpenPlan, config: PlanConfig, entry: DeviceEntry) -> MemoryNeeds:
        plan = opened.plan
        index = select_match(
            [variant.fingerprint for variant in plan.variants],
            entry.fingerprint,
            allow=config.allow,
            source=config.path,
        )
        variant = plan.variants[index]
        return memory_needs(plan, variant, config.threads, entry.device.usable_workers())

    def _entry_for(self, opened: OpenPlan, config: PlanConfig) -> DeviceEntry:
        known = self._entries.get(config.device)
        if known is not None:
            return known
        device = choose_device(
            opened.plan, config.device or None, allow=config.allow, source=config.path
        )
        number = getattr(device, "ordinal", None)
        name = device.kind if number is None else f"{device.kind}:{number}"
        known = self._entries.get(name)
        if known is not None:
            return known
        available = available_bytes(device, self._budget_bytes)
        return self.add(DeviceEntry(name, device, device.probe(), available))


def _open(config: PlanConfig) -> OpenPlan:
    key = load_public_key(config.key) if config.key else None
    return open_plan(config.path, public_key=key)
