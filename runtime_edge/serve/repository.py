"""The plans that are served: load beside the running one, check, swap, retire, fall back."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from runtime_edge.serve.config import PlanConfig
from runtime_edge.serve.deployment import Deployment
from runtime_edge.serve.devices import LOAD_ERRORS, Devices
from runtime_edge.serve.errors import RequestError, ServeError
from runtime_edge.serve.last_good import MAX_ENDS, LastGood
from runtime_edge.serve.scheduler import PlanQueue
from runtime_edge.serve.statistics import PlanStatistics
from runtime_edge.serve.stream_memory import StreamMemory
from runtime_edge.serve.stream_worker import StreamWorker

_log = logging.getLogger(__name__)

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


class Repository:
    """All served plans.

    Attributes:
        plans: by name.
        devices: where they are loaded.
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
        self.devices = Devices(make_worker, budget_bytes)
        self.on_change: Callable[[], None] = lambda: None
        self._last_good = LastGood(state_dir)
        self._loading: dict[str, asyncio.Lock] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="edgeplan-load")

    @property
    def is_ready(self) -> bool:
        """Whether every required plan can be used."""
        return all(
            plan.deployment is not None
            for plan in self.plans.values()
            if plan.config.required and plan.is_wanted
        )

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
            except LOAD_ERRORS as error:
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
            except LOAD_ERRORS as error:
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

    def finished(self, deployment: Deployment) -> None:
        """One pending request of a deployment is over."""
        deployment.num_pending -= 1
        if deployment.is_retired and deployment.num_pending == 0:
            self._close_later(deployment)

    async def close(self) -> None:
        """Give everything back; nothing may be running."""
        for plan in self.plans.values():
            plan.deployment = None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._loader, self.devices.close_all)
        self._loader.shutdown()

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
        future = self._loader.submit(self.devices.close, deployment)
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
        except LOAD_ERRORS as error:
            _log.error("plan %s: %s", name, error)
        else:
            self.plans[name].reason = f"the configured plan failed; serving {path}"

    def _load_recorded(
        self, config: PlanConfig, generation: int, is_start: bool
    ) -> tuple[Deployment, StreamWorker]:
        """On the loader's thread: load, and leave a trace should the process end meanwhile."""
        if self.devices.lost:  # whatever happens now is not this plan's doing
            return self.devices.load(config, generation)
        record, path = self._last_good, os.path.realpath(config.path)
        num_ends = record.num_ends(config.name, path)
        if is_start and num_ends >= MAX_ENDS and record.good(config.name) != path:
            raise ServeError(
                f"plan {path}: {num_ends} processes ended while they loaded it, so it is left out; "
                f"replace it, or try again with: edgeplan client load {config.name}"
            )
        record.begin(config.name, path)
        try:
            loaded = self.devices.load(config, generation)
        except LOAD_ERRORS:
            if not self.devices.lost:
                record.end(config.name, path, is_good=False)
            raise
        record.end(config.name, path, is_good=True)
        return loaded


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


def _log_failure(future: Any) -> None:
    error = future.exception()
    if error is not None:
        _log.error("closing a retired plan failed", exc_info=error)
