"""The daemon: its parts put together, its start, its signals and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime_edge.serve.api import Api
from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.config import ServeConfig, read_token
from runtime_edge.serve.devices import LOAD_ERRORS
from runtime_edge.serve.errors import ConfigError
from runtime_edge.serve.http_server import HttpServer
from runtime_edge.serve.inference import InferenceService
from runtime_edge.serve.metrics import Exposition
from runtime_edge.serve.metrics_api import MetricsApi
from runtime_edge.serve.repository import Repository
from runtime_edge.serve.sensor_reader import SensorReader
from runtime_edge.serve.shared_memory import SharedMemoryRegions
from runtime_edge.serve.stream_memory import StreamMemory
from runtime_edge.serve.stream_worker import StreamWorker
from runtime_edge.serve.sysfs import find_sensors
from runtime_edge.serve.trace import Trace
from runtime_edge.systemd import Notifier

if TYPE_CHECKING:
    import ssl

_log = logging.getLogger(__name__)

_EXPIRY_S = 0.02
_TRIM_S = 5.0
_SWITCH_INTERVAL_S = 0.0005
_CLOSE_S = 10.0
_WAITING_S = 10.0
_EXIT_HUNG = 70  # EX_SOFTWARE
_EXIT_LOST = 71  # EX_OSERR
_WATCHDOG_SHARE = 4  # a sign of life at a quarter of the time allowed


class Daemon:
    """One daemon. `run` does everything; `start` and `stop` are for programs that embed it.

    Attributes:
        config: its options.
        http_address: host and port of the protocol, once started; metrics_address, grpc_address:
            the same, None without.
        repository, service: its parts.
    """

    def __init__(self, config: ServeConfig, notifier: Notifier | None = None) -> None:
        """Put the parts together. Belongs to the running event loop."""
        self.config = config
        self.http_address: tuple[str, int] | None = None
        self.metrics_address: tuple[str, int] | None = None
        self.grpc_address: tuple[str, int] | None = None
        self._loop = asyncio.get_running_loop()
        self._notifier = notifier or Notifier({})
        self._bodies = BodyPool(config.max_inflight_bytes)
        self.repository = Repository(
            config.plans,
            self._make_worker,
            budget_bytes=config.device_memory_bytes,
            state_dir=config.state_dir,
        )
        self.service = InferenceService(self.repository, Trace(config.trace_events))
        self._regions = SharedMemoryRegions(self._bodies)
        self._exposition = Exposition(self.repository, self._bodies, SensorReader(find_sensors()))
        token = read_token(config.token_file) if config.token_file else None
        self._token = token
        self._api = Api(config, self.service, self._regions, self._exposition, token)
        self._metrics_api: MetricsApi | None = None
        self._servers: list[HttpServer] = []
        self._grpc: Any = None
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_fed: dict[str, int] = {}
        self._turns: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
        self._is_announced = False
        self._status = 0
        self.repository.on_change = self._on_change
        self.service.on_failure = self._check_devices

    async def run(self, on_ready: Callable[[Daemon], None]) -> int:
        """Start, serve until SIGTERM or SIGINT, end in good order; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopped.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        # What was imported lives as long as the process: full collections, which stop everything
        # for their time, need not go through it. Plans are loaded later and stay collectable.
        gc.freeze()
        await self.start()
        on_ready(self)
        await self._stopped.wait()
        await self.stop()
        return self._status

    async def start(self) -> None:
        """Load the plans and listen.

        The listeners open first: health can be asked while plans load, and an address that is
        taken is found before anything else is done.

        Raises:
            ConfigError: an address cannot be used.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        config = self.config
        server = HttpServer(self._api, config, self._bodies)
        self._servers.append(server)
        self._exposition.num_connections = lambda: sum(s.num_connections for s in self._servers)
        self._exposition.num_turned_away = lambda: sum(s.num_turned_away for s in self._servers)
        if config.http:
            self.http_address = await server.listen_tcp(config.http, "http", self._tls())
        if config.unix:
            await server.listen_unix(config.unix)
        if config.metrics:
            self._metrics_api = MetricsApi(self.service, self._exposition)
            monitor = HttpServer(self._metrics_api, config, self._bodies)
            self._servers.append(monitor)
            self.metrics_address = await monitor.listen_tcp(config.metrics, "metrics")
        if config.grpc:
            from runtime_edge.serve.grpc_server import GrpcServer

            self._grpc = GrpcServer(self.service, self._bodies, self._regions, config, self._token)
            self.grpc_address = await self._grpc.start()
        await self.repository.load_all(self._on_progress)
        self._every("expiry", _EXPIRY_S, self._expire)
        self._every("trim", _TRIM_S, self._bodies.trim)
        if config.watch_interval_s:
            self._every("watch", config.watch_interval_s, self._look_for_new_plans)
        self._start_watchdog()
        self._announce()
        if not self._is_announced:
            _log.error("not ready: a required plan could not be loaded; waiting for a new one")
            self._every("waiting", _WAITING_S, self._wait_longer)
        self._show_status()

    async def stop(self) -> None:
        """Refuse what is new, finish what was accepted, close."""
        self._notifier.stopping()
        self.service.is_draining = True
        if self.service.num_pending:
            _log.info("draining: %d requests", self.service.num_pending)
            self._notifier.extend_timeout(self.config.drain_timeout_s + 5)
            self.service.on_idle = self._idle.set
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self.config.drain_timeout_s)
            if self.service.num_pending:
                _log.warning("%d requests were not finished in time", self.service.num_pending)
        for timer in self._timers.values():
            timer.cancel()
        for server in self._servers:
            server.stop_accepting()
        await asyncio.sleep(0)  # answers that were written leave before their connections do
        if self._grpc is not None:
            await self._grpc.stop()
        for task in list(self._tasks):
            task.cancel()
        for worker in self.repository.devices.workers:
            worker.watch(None, 0.0)
        try:
            await asyncio.wait_for(self.repository.close(), _CLOSE_S)
        except asyncio.TimeoutError:
            # Its thread cannot be ended, and the interpreter would wait for it for ever.
            _log.critical("a stream hangs: the process ends without giving its memory back")
            logging.shutdown()
            os._exit(_EXIT_HUNG)
        self._api.close()
        if self._metrics_api is not None:
            self._metrics_api.close()
        for server in self._servers:
            server.close()
        self._regions.unregister()
        _log.info("stopped")

    def reload(self, names: list[str]) -> None:
        """Load new versions of plans in the background."""

        async def run() -> None:
            if self._is_announced:
                self._notifier.reloading()
            for name in names:
                try:
                    await self.repository.load(name)
                except LOAD_ERRORS as error:
                    _log.error("plan %s: the new version is not used: %s", name, error)
            self._announce()
            self._show_status()

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self) -> None:
        """Tell the service manager that the daemon is up, or that a reload is over."""
        if self._is_announced or self.repository.is_ready:
            self._is_announced = True
            self._notifier.ready()

    def _wait_longer(self) -> None:
        """Until it is ready the manager would end the daemon, which may serve other plans."""
        if self._is_announced:
            return
        self._announce()  # a plan may have come, or be wanted no more, by a request
        if not self._is_announced:
            self._notifier.extend_timeout(2 * _WAITING_S)

    def _on_hangup(self) -> None:
        self.reload([name for name, plan in self.repository.plans.items() if plan.is_wanted])

    def _look_for_new_plans(self) -> None:
        names = self.repository.changed()
        if names:
            _log.info("new files for %s", ", ".join(names))
            self.reload(names)

    def _expire(self) -> None:
        for worker in self.repository.devices.workers:
            if worker.num_waiting:
                expired = worker.take_expired()
                if expired:
                    self.service.on_expired(expired)

    def _every(self, name: str, interval_s: float, function: Any) -> None:
        def turn() -> None:
            self._timers[name] = self._loop.call_later(interval_s, turn)
            function()

        self._timers[name] = self._loop.call_later(interval_s, turn)

    def _make_worker(self, name: str, memory: StreamMemory) -> StreamWorker:
        return StreamWorker(name, memory, self._loop, self.service.on_done, self.service.on_expired)

    # -- the watchdog: fed when every stream has completed an inference since the last time

    def _start_watchdog(self) -> None:
        if not self._notifier.watchdog_s:
            return
        interval_s = self._notifier.watchdog_s / _WATCHDOG_SHARE
        self._every("watchdog", interval_s, lambda: self._feed_watchdog(interval_s))

    def _feed_watchdog(self, interval_s: float) -> None:
        """A stream without requests runs a self-test; a hung one completes nothing any more."""
        workers = self.repository.devices.workers
        for worker in workers:
            worker.watch(self._self_test_of(worker), interval_s)
        completed = {worker.name: worker.last_completed_ns for worker in workers}
        if all(at > self._last_fed.get(name, 0) for name, at in completed.items()):
            self._last_fed = completed
            self._notifier.alive()

    def _self_test_of(self, worker: StreamWorker) -> Any:
        """One inference of one of its plans, each in turn."""
        turns = self._turns[worker.name]

        def test() -> None:
            plans = [p for p in self.repository.plans.values() if p.worker is worker]
            deployments = [plan.deployment for plan in plans if plan.deployment is not None]
            if deployments:
                deployments[next(turns) % len(deployments)].self_test()

        return test

    def _on_progress(self, number: int, name: str) -> None:
        num = len(self.repository.plans)
        self._notifier.status(f"loading plan {number + 1} of {num}: {name}")
        self._notifier.extend_timeout(60)

    def _on_change(self) -> None:
        self._show_status()
        self._check_devices()

    def _check_devices(self) -> None:
        """A lost GPU comes back with a new process only: end, and be started again."""
        lost = self.repository.devices.lost
        if lost and not self._status:
            _log.critical("%s is lost: the process ends, to be started again", ", ".join(lost))
            self._status = _EXIT_LOST
            self._notifier.trigger()
            self._stopped.set()

    def _show_status(self) -> None:
        plans = self.repository.plans.values()
        num_ready = sum(plan.deployment is not None for plan in plans)
        self._notifier.status(f"serving {num_ready} of {len(plans)} plans")

    def _tls(self) -> ssl.SSLContext | None:
        if not self.config.tls_cert:
            return None
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.config.tls_cert, self.config.tls_key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"tls_cert = '{self.config.tls_cert}', tls_key = '{self.config.tls_key}': {error}"
            ) from error
        return context


def serve(config: ServeConfig, on_ready: Callable[[Daemon], None]) -> int:
    """Run a daemon in this process until it is told to stop; returns the exit status."""

    async def run() -> int:
        return await Daemon(config, Notifier(os.environ)).run(on_ready)

    return asyncio.run(run())
