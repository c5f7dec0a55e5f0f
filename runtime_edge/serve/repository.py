"""The plans that are served: load beside the running one, check, swap, retire, fall back."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from planformat.errors import PlanError
from planformat.fingerprint import DeviceFingerprint, select_match
from planformat.reader import OpenPlan, open_plan
from planformat.signing import load_public_key
from runtime_edge.device.base import Device
from runtime_edge.device.select import choose_device
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.serve.config import PlanConfig
from runtime_edge.serve.deployment import Deployment, StreamMemory
from runtime_edge.serve.errors import MemoryBudgetError, RequestError, ServeError
from runtime_edge.serve.last_good import MAX_ENDS, LastGood
from runtime_edge.serve.memory_report import (
    DeviceTotals,
    MemoryNeeds,
    PlanRow,
    available_bytes,
    memory_needs,
    totals,
)
from runtime_edge.serve.scheduler import PlanQueue
from runtime_edge.serve.statistics import PlanStatistics
from runtime_edge.serve.stream_worker import StreamWorker

_log = logging.getLogger(__name__)

_LOAD_ERRORS = (PlanError, RuntimeEdgeError, ServeError, OSError)
Signature = tuple[str, int, int, int, int]


@dataclass(eq=False)
class ServedPlan:
    """One name under which a plan is served. Belongs to the event loop's thread.

    Attributes:
        config: as configured; queue: its bounds and load; statistics: its counters.
        deployment: the version that new requests go to; None when it cannot be used.
        state: as the repository index shows it: READY, LOADING, UNAVAILABLE; reason: why.
        generation: number of loads so far.
        attempted: what was last loaded, or tried.
    """

    config: PlanConfig
    queue: PlanQueue
    statistics: PlanStatistics = field(default_factory=PlanStatistics)
    deployment: Deployment | None = None
    worker: StreamWorker | None = None
    state: str = "UNAVAILABLE"
    reason: str = "not loaded"
    generation: int = 0
    attempted: Signature | None = None
    is_wanted: bool = True


@dataclass
class DeviceEntry:
    """A device, its memory budget and its streams."""

    name: str
    device: Device
    fingerprint: DeviceFingerprint
    available_bytes: int | None
    streams: dict[str, StreamWorker] = field(default_factory=dict)


class Repository:
    """All served plans, devices and streams.

    Attributes:
        plans: by name.
        devices: by name, those in use.
        on_change: called on the event loop's thread after a plan came, went or failed.
    """

    def __init__(
        self,
        plans: tuple[PlanConfig, ...],
        make_worker: Callable[[str, StreamMemory], StreamWorker],
        *,
        budget_bytes: int = 0,
        state_dir: str = "",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            plans: what is served.
            make_worker: starts the thread of a stream.
            budget_bytes: of device memory per device; 0 asks the device.
            state_dir: see `ServeConfig`.
        """
        self.plans = {
            config.name: ServedPlan(
                config,
                PlanQueue(
                    config.name,
                    config.queue_requests,
                    config.queue_bytes,
                    config.queue_ms * 1000,
                    config.batch_delay_us,
                    config.weight,
                ),
            )
            for config in plans
        }
        self.devices: dict[str, DeviceEntry] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._make_worker = make_worker
        self._budget_bytes = budget_bytes
        self._last_good = LastGood(state_dir)
        self._loading: dict[str, asyncio.Lock] = {}
        self._live: dict[Deployment, StreamWorker] = {}  # those whose memory is taken
        # One thread: two loads at once could each think that the memory left is theirs.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="edgeplan-load")

    @property
    def is_ready(self) -> bool:
        """Whether every required plan can be used."""
        return all(
            plan.deployment is not None
            for plan in self.plans.values()
            if plan.config.required and plan.is_wanted
        )

    @property
    def workers(self) -> list[StreamWorker]:
        """Of all streams."""
        return [worker for d in self.devices.values() for worker in d.streams.values()]

    @property
    def lost_devices(self) -> list[str]:
        """Devices that met an error after which only a new process can use them."""
        return [
            name
            for name, entry in self.devices.items()
            if getattr(getattr(entry.device, "context", None), "is_dead", False)
        ]

    def plan(self, name: str, version: str | None = None) -> ServedPlan:
        """A served plan.

        Raises:
            RequestError: 404: no such name or version.
        """
        plan = self.plans.get(name)
        if plan is None:
            known = ", ".join(self.plans) or "nothing"
            raise RequestError(404, f"model '{name:.128}' is not known; served are {known}")
        if version is not None and version != plan.config.version:
            raise RequestError(
                404, f"model '{name}' has no version '{version:.32}', only {plan.config.version}"
            )
        return plan

    async def load_all(self, on_progress: Callable[[int, str], None]) -> None:
        """Load every plan; one that fails leaves the others alone."""
        for number, name in enumerate(self.plans):
            on_progress(number, name)
            try:
                await self.load(name, is_start=True)
            except _LOAD_ERRORS as error:
                _log.error("plan %s: %s", name, error)
                await self._load_last_good(name)

    async def load(self, name: str, path: str = "", *, is_start: bool = False) -> None:
        """Load a plan, or its new version beside the running one, and swap.

        The running version keeps serving until the new one has passed its canary and its warm-up;
        requests that it accepted run on it to their end. After an error it simply stays.

        Args:
            name: of a served plan.
            path: another file than the configured one.
            is_start: leave out a file that ended earlier processes while they loaded it.

        Raises:
            PlanError, RuntimeEdgeError, ServeError, OSError: why the new version is not used.
        """
        plan = self.plan(name)
        plan.is_wanted = True
        async with self._loading.setdefault(name, asyncio.Lock()):
            config = replace(plan.config, path=path) if path else plan.config
            plan.attempted = file_signature(plan.config.path)
            if plan.deployment is None:
                plan.state, plan.reason = "LOADING", ""
            loop = asyncio.get_running_loop()
            try:
                deployment, worker = await loop.run_in_executor(
                    self._loader, self._load_recorded, config, plan.generation + 1, is_start
                )
            except _LOAD_ERRORS as error:
                plan.statistics.reloads["failed"] += 1
                if plan.deployment is None:
                    plan.state = "UNAVAILABLE"
                plan.reason = str(error)
                self.on_change()
                raise
            plan.statistics.reloads["loaded"] += 1
            self._swap(plan, deployment, worker)

    async def unload(self, name: str) -> None:
        """Stop serving a plan; what was accepted is still answered."""
        plan = self.plan(name)
        plan.is_wanted = False
        async with self._loading.setdefault(name, asyncio.Lock()):
            retired, plan.deployment = plan.deployment, None
            plan.state, plan.reason = "UNAVAILABLE", "unloaded"
            self._retire(retired)
            self.on_change()

    def changed(self) -> list[str]:
        """Names of wanted plans whose file is another one than was last loaded or tried."""
        names = []
        for name, plan in self.plans.items():
            lock = self._loading.get(name)
            if not plan.is_wanted or (lock is not None and lock.locked()):
                continue
            signature = file_signature(plan.config.path)
            if signature is not None and signature != plan.attempted:
                names.append(name)
        return names

    def worker_of(self, deployment: Deployment) -> StreamWorker | None:
        """The stream on which a deployment runs; None when it is closed."""
        return self._live.get(deployment)

    def finished(self, deployment: Deployment) -> None:
        """One pending request of a deployment is over."""
        deployment.num_pending -= 1
        if deployment.is_retired and deployment.num_pending == 0:
            self._close_later(deployment)

    def report(self) -> tuple[list[PlanRow], list[DeviceTotals]]:
        """Memory of all configured plans, from their files; loads no code and no weights."""
        rows = []
        for plan in self.plans.values():
            config = plan.config
            try:
                opened = _open(config)
                try:
                    entry = self._device_for(opened, config)
                    needs = self._needs(opened, config, entry)
                finally:
                    opened.close()
                rows.append(PlanRow(config.name, entry.name, config.stream, needs))
            except _LOAD_ERRORS as error:
                empty = MemoryNeeds(0, 0, 0)
                rows.append(PlanRow(config.name, config.device, config.stream, empty, str(error)))
        available = {name: entry.available_bytes for name, entry in self.devices.items()}
        return rows, totals(rows, available)

    def used_bytes(self, device: str) -> dict[str, int]:
        """Device memory that is taken, by purpose."""
        entry = self.devices[device]
        regions = [worker.memory for worker in entry.streams.values()]
        return {
            "weights": sum(
                d.needs.weights for d in list(self._live) if d.engine.device is entry.device
            ),
            "arena": sum(m.arena.nbytes for m in regions if m.arena is not None),
            "io": sum(m.io.nbytes for m in regions if m.io is not None),
        }

    async def close(self) -> None:
        """Give everything back; nothing may be running."""
        for plan in self.plans.values():
            plan.deployment = None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._loader, self._close_all)
        self._loader.shutdown()

    def _close_all(self) -> None:
        for deployment, worker in list(self._live.items()):
            del self._live[deployment]
            try:
                worker.call(deployment.close)
            except RuntimeEdgeError as error:  # a lost device takes nothing back
                _log.error("plan %s cannot be closed: %s", deployment.config.name, error)
        for worker in self.workers:
            worker.close()

    def _swap(self, plan: ServedPlan, deployment: Deployment, worker: StreamWorker) -> None:
        retired, plan.deployment = plan.deployment, deployment
        plan.worker = worker
        plan.generation = deployment.generation
        plan.state, plan.reason = "READY", ""
        self._retire(retired)
        _log.info(
            "plan %s: generation %d is serving (%s)",
            plan.config.name,
            plan.generation,
            deployment.path,
        )
        self.on_change()

    def _retire(self, deployment: Deployment | None) -> None:
        if deployment is None:
            return
        deployment.is_retired = True
        if deployment.num_pending == 0:
            self._close_later(deployment)

    def _close_later(self, deployment: Deployment) -> None:
        """Close between two batches of its stream, where nothing can be using it."""

        def close() -> None:
            self._live.pop(deployment).call(deployment.close)

        future = self._loader.submit(close)
        future.add_done_callback(_log_failure)

    async def _load_last_good(self, name: str) -> None:
        """At start, when the configured plan cannot be used: the one that worked before."""
        path = self._last_good.good(name)
        configured = os.path.realpath(self.plans[name].config.path)
        if not path or path == configured or not os.path.exists(path):
            return
        _log.warning("plan %s: going back to %s, which worked before", name, path)
        try:
            await self.load(name, path)
        except _LOAD_ERRORS as error:
            _log.error("plan %s: %s", name, error)
        else:
            self.plans[name].reason = f"the configured plan failed; serving {path}"

    def _load_recorded(
        self, config: PlanConfig, generation: int, is_start: bool
    ) -> tuple[Deployment, StreamWorker]:
        """On the loader's thread: load, and leave a trace should the process end meanwhile."""
        if self.lost_devices:  # whatever happens now is not this plan's doing
            return self._make_deployment(config, generation)
        record, path = self._last_good, os.path.realpath(config.path)
        num_ends = record.num_ends(config.name, path)
        if is_start and num_ends >= MAX_ENDS and record.good(config.name) != path:
            raise ServeError(
                f"plan {path}: {num_ends} processes ended while they loaded it, so it is left out; "
                f"replace it, or try again with: edgeplan client load {config.name}"
            )
        record.begin(config.name, path)
        try:
            loaded = self._make_deployment(config, generation)
        except _LOAD_ERRORS:
            if not self.lost_devices:
                record.end(config.name, path, is_good=False)
            raise
        record.end(config.name, path, is_good=True)
        return loaded

    def _make_deployment(
        self, config: PlanConfig, generation: int
    ) -> tuple[Deployment, StreamWorker]:
        """On the loader's thread."""
        opened = _open(config)
        try:
            entry = self._device_for(opened, config)
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
            worker.call(deployment.warm_up)
        except BaseException:
            worker.call(deployment.close)
            raise
        self._live[deployment] = worker
        return deployment, worker

    def _check_budget(
        self, needs: MemoryNeeds, config: PlanConfig, entry: DeviceEntry, worker: StreamWorker
    ) -> None:
        used = self.used_bytes(entry.name)
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

    def _device_for(self, opened: OpenPlan, config: PlanConfig) -> DeviceEntry:
        known = self.devices.get(config.device)
        if known is not None:
            return known
        device = choose_device(
            opened.plan, config.device or None, allow=config.allow, source=config.path
        )
        number = getattr(device, "ordinal", None)
        name = device.kind if number is None else f"{device.kind}:{number}"
        entry = self.devices.get(name)
        if entry is None:
            available = available_bytes(device, self._budget_bytes)
            entry = DeviceEntry(name, device, device.probe(), available)
            self.devices[name] = entry
        return entry


def file_signature(path: str) -> Signature | None:
    """What tells one file behind a path from another; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (
        os.path.realpath(path),
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_size,
    )


def _open(config: PlanConfig) -> OpenPlan:
    key = load_public_key(config.key) if config.key else None
    return open_plan(config.path, public_key=key)


def _log_failure(future: Any) -> None:
    error = future.exception()
    if error is not None:
        _log.error("closing a retired plan failed", exc_info=error)
