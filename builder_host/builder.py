"""The build from top to bottom: Network -> passes -> layouts -> tuning -> Plan."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder_host.codegen.executors import open_executor
from builder_host.config import BuilderConfig
from builder_host.emit.plan import emit_plan
from builder_host.emit.verification import (
    CANARY_SEED,
    ERROR_LIMITS,
    TOLERANCE_OF_PRECISION,
    TOLERANCE_OF_SAME_CODE,
    check_outputs,
    make_canary,
    with_canary,
)
from builder_host.errors import BuilderError
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.lowering.draft import Draft, check_same_bindings, make_draft
from builder_host.measure.base import PlanDevice
from builder_host.measure.bundle import write_bundle
from builder_host.measure.local import (
    LocalDevice,
    cpu_tune_device,
    gpu_fingerprint,
    gpu_tune_device,
    local_fingerprint,
    local_gpu,
)
from builder_host.network.network import Network
from builder_host.plugins.provenance import plugin_provenance
from builder_host.recipe import recipe_of
from builder_host.report import BuildReport, make_report
from builder_host.targets.backend import Backend, CpuBackend, make_backend
from builder_host.targets.target import target_fingerprint, target_hardware
from builder_host.trace import TraceWriter
from builder_host.tune.profiles import tune_profiles
from builder_host.tune.select import Selection, Tuner
from builder_host.tune.timing_cache import (
    Timing,
    TimingCache,
    TimingKey,
    digest,
    load_timing_cache,
)
from planformat.fingerprint import DeviceFingerprint, compare, fingerprint_to_json
from planformat.plan import Plan
from planformat.writer import plan_bytes, save_plan

if TYPE_CHECKING:
    from builder_host.measure.remote import RemoteBoards

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

DEFAULT_PROFILE = "default"
_GPU = "cuda:"


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A finished plan and the report of how it was made."""

    plan: Plan
    report: BuildReport = field(repr=False)

    def save(self, path: str | os.PathLike[str], *, signing_key: bytes | None = None) -> None:
        """Write the plan file atomically, signed when a key is given.

        Args:
            path: of the file.
            signing_key: Ed25519 private key, or None.
        """
        save_plan(self.plan, path, signing_key=signing_key)

    def to_bytes(self, *, signing_key: bytes | None = None) -> bytes:
        """The plan file's bytes.

        Args:
            signing_key: Ed25519 private key, or None.
        """
        return plan_bytes(self.plan, signing_key=signing_key)


def build(
    network: Network | Mapping[str, Network],
    config: BuilderConfig | None = None,
    *,
    progress: Progress | None = None,
) -> BuiltPlan:
    """Build a plan.

    Args:
        network: what an importer or the network-definition API made; it is left as it is. Or
            several by profile name: one network in several shapes (batch 1, 4, 8 ...), which
            share the plan and its weights. The first is the default profile.
        config: options; default: this machine's CPU.
        progress: called with a phase's name, items done and items in all.

    Raises:
        BuilderError: a subclass names what cannot be done and why.
    """
    config, progress = config or BuilderConfig(), progress or _no_progress
    with open_executor(config.executor) as executor, _open_boards(config, progress) as boards:
        return _Build(network, config, progress, executor, boards).finish()


def write_tuning_bundle(
    network: Network | Mapping[str, Network],
    path: str | os.PathLike[str],
    config: BuilderConfig | None = None,
    *,
    progress: Progress | None = None,
) -> int:
    """Write the candidates that the timing cache lacks, to be timed by `edgeplan tune`.

    Args:
        network: as for `build`.
        path: zip file to write.
        config: as for the `build` that will use the timings; `measure` is not looked at.
        progress: as for `build`.

    Returns:
        Number of candidates in the bundle.
    """
    config = replace(config or BuilderConfig(), measure="none", boards=())
    with open_executor(config.executor) as executor:
        job = _Build(network, config, progress or _no_progress, executor, None)
        return job.write_bundle(path)


class _Build:
    """The stages of one build; the constructor goes as far as the list of problems."""

    def __init__(
        self,
        network: Network | Mapping[str, Network],
        config: BuilderConfig,
        progress: Progress,
        executor: Executor | None,
        boards: RemoteBoards | None,
    ) -> None:
        self.config = config = config.with_table()
        self.progress = progress
        networks = {DEFAULT_PROFILE: network} if isinstance(network, Network) else dict(network)
        if not networks:
            raise BuilderError("no network to build: the mapping of profiles is empty")
        self.plugins = plugin_provenance(networks.values())
        if boards is not None:
            self.fingerprint, here = boards.fingerprint, ""
        else:
            self.fingerprint, here = resolve_target(config.target)
        hardware = target_hardware(config.target)
        self.recipe = recipe_of(next(iter(networks.values())), config, hardware)
        self.backend = make_backend(
            self.fingerprint,
            compiler=config.compiler,
            artifact_dir=config.artifact_dir,
            jobs=config.num_jobs or os.cpu_count() or 1,
            hardware=hardware,
            executor=executor,
        )
        if boards is None:
            _check_measuring(config, bool(here))
        self.num_workers = config.num_threads or self.backend.default_workers
        self.networks = networks
        self.drafts = self._drafts({})
        self.flush_bytes = self.backend.target.flush_bytes(self.drafts[0].constant_bytes)
        self.device: PlanDevice | None = boards
        if boards is not None:
            boards.prepare(flush_bytes=self.flush_bytes, support=self.backend.support_code())
        else:
            self.device = _local_device(self.backend, here, progress, self.flush_bytes)
        self.cache = _load_cache(config)
        self.tuner = Tuner(
            FamilyChoice(self.backend.families, self.backend.target),
            self.backend,
            self.cache,
            self.device if config.measure == "local" else None,
            fingerprint_id=digest(fingerprint_to_json(self.fingerprint)),
            conditions=f"flush={self.flush_bytes}",
            is_strict=config.is_strict_cache,
            workspace_limit_bytes=config.workspace_limit_bytes,
            progress=progress,
        )

    def write_bundle(self, path: str | os.PathLike[str]) -> int:
        """Compile what the cache lacks and write the bundle."""
        rows = self.tuner.rows(self._problems())
        prepared = self.tuner.prepare(self.tuner.missing(rows))
        write_bundle(
            path,
            prepared.jobs,
            [candidate.key for candidate in prepared.candidates],
            [(candidate.key, timing.error) for candidate, timing in prepared.failed],
            fingerprint=self.fingerprint,
            num_workers=self.num_workers,
            flush_bytes=self.flush_bytes,
            support=self.backend.support_code(),
        )
        return len(prepared.jobs)

    def finish(self) -> BuiltPlan:
        """Select tactics, emit the plan, try it where it can run."""
        config = self.config
        selections = self._selections()
        _save_cache(config, self.cache)
        tuned = tune_profiles(self.drafts, selections, self.tuner, config.sharing_tolerance)
        self.progress("emit", 0, 1)
        chosen = [item.selection for profile in tuned for item in profile.operations]
        plan = emit_plan(
            tuned,
            backend=self.backend,
            fingerprint=self.fingerprint,
            provenance=_provenance(self.drafts[0].network, config, self.backend, chosen)
            | self.plugins,
            recipe=self.recipe,
            keeps_equal_apart=config.is_refittable,
        )
        plan, accuracy = self._tried(plan)
        _save_cache(config, self.cache)
        report = make_report(plan, tuned, self.tuner.summary, accuracy)
        self.progress("done", 1, 1)
        return BuiltPlan(plan, report)

    def _drafts(self, timed_us: Mapping[str, float]) -> list[Draft]:
        """The profiles up to the list of problems, what is fused decided by the times given."""
        drafts: list[Draft] = []
        for name, one in self.networks.items():
            draft = make_draft(
                name,
                one,
                self.config,
                self.backend,
                num_workers=self.num_workers,
                trace=_trace(self.config, name, is_only=len(self.networks) == 1),
                first=drafts[0] if drafts else None,
                store=self.backend.toolchain.store,
                timed_us=timed_us,
            )
            drafts.append(draft)
        check_same_bindings(drafts)
        return drafts

    def _problems(self) -> Iterator[Problem]:
        """What runs, and what would where layers were fused otherwise."""
        for draft in self.drafts:
            yield from (operation.problem for operation in draft.operations)
            yield from draft.contested

    def _selections(self) -> dict[str, Selection]:
        """A tactic by `Problem.text()`; fusions that the timings speak against are taken back."""
        selections = self.tuner.select(self._problems())
        timed_us = {
            text: selection.timing.median_us
            for text, selection in selections.items()
            if selection.timing is not None and selection.timing.median_us is not None
        }
        if not any(problem.text() in timed_us for d in self.drafts for problem in d.contested):
            return selections
        self.drafts = self._drafts(timed_us)
        summary = self.tuner.summary
        # Problems whose layouts follow from the other choice may be new.
        selections = self.tuner.select(self._problems())
        again = self.tuner.summary
        self.tuner.summary = replace(
            again,
            num_cached=again.num_cached - summary.num_measured,
            num_measured=again.num_measured + summary.num_measured,
        )
        return selections

    def _tried(self, plan: Plan) -> tuple[Plan, dict[str, float]]:
        """The plan with a canary for each profile, and the error of each output."""
        if self.device is None:
            for index, draft in enumerate(self.drafts):
                if draft.reference is not None:
                    tolerance = TOLERANCE_OF_PRECISION[draft.precision.storage]
                    canary = make_canary(plan.bindings, draft.reference, None, tolerance)
                    plan = with_canary(plan, index, canary)
            return plan, {}
        known = [self._known_latency(plan, index) for index in range(len(self.drafts))]
        may_time = self.config.measure == "local" and not self.config.is_strict_cache
        trials = self.device.try_plan(
            plan, CANARY_SEED, [may_time and timing is None for _, timing in known]
        )
        accuracy: dict[str, float] = {}
        tried = plan
        for index, (draft, (key, timing), trial) in enumerate(
            zip(self.drafts, known, trials, strict=True)
        ):
            if draft.reference is not None:
                limit = ERROR_LIMITS[draft.precision.storage]
                errors = check_outputs(draft.reference, trial.outputs, limit)
                prefix = f"{draft.name}: " if index else ""
                accuracy |= {prefix + name: error for name, error in errors.items()}
            if trial.timing is not None:
                timing = trial.timing
                self.cache.put(key, timing)
            latency_us = timing.median_us if timing is not None else None
            canary = make_canary(plan.bindings, trial.outputs, latency_us, TOLERANCE_OF_SAME_CODE)
            tried = with_canary(tried, index, canary)
            if timing is not None and timing.observed and index == 0:
                told = {**plan.provenance, "conditions": timing.observed}
                tried = replace(tried, provenance=told)
        return tried, accuracy

    def _known_latency(self, plan: Plan, index: int) -> tuple[TimingKey, Timing | None]:
        """Key of a profile's latency in the cache, and what the cache says."""
        variant = plan.variants[0]
        codes = (hashlib.sha256(code.data).hexdigest() for code in variant.code_objects)
        steps = digest(*codes, *(repr(step) for step in variant.profiles[index].steps))
        tuner = self.tuner
        key = TimingKey(
            tuner.fingerprint_id, f"plan:{steps}", "plan", "plan", tuner.backend.identity, "warm"
        )
        return key, tuner.cache.get(key)


def _trace(config: BuilderConfig, profile: str, *, is_only: bool) -> TraceWriter | None:
    """Each of several profiles is traced into a folder of its own."""
    if config.trace_dir is None:
        return None
    folder = Path(config.trace_dir)
    return TraceWriter(folder if is_only else folder / profile)


def _local_device(
    backend: Backend, here: str, progress: Progress, flush_bytes: int
) -> LocalDevice | None:
    if not here:
        return None
    if isinstance(backend, CpuBackend):
        return LocalDevice(cpu_tune_device(backend.toolchain, flush_bytes), progress)
    number = int(here.removeprefix(_GPU))
    return LocalDevice(gpu_tune_device(number, flush_bytes), progress)


def _check_measuring(config: BuilderConfig, is_timed_here: bool) -> None:
    if config.measure == "local" and not is_timed_here and not config.is_strict_cache:
        raise BuilderError(
            f"target '{config.target}' is no device of this machine: its kernels cannot be timed "
            "here; use measure 'none', or a timing cache from the device with a strict build"
        )


@contextlib.contextmanager
def _open_boards(config: BuilderConfig, progress: Progress) -> Iterator[RemoteBoards | None]:
    """The boards that the candidates are timed on, closed afterwards.

    Raises:
        TargetError: the target is another device than the boards.
        BoardError: a board cannot be reached.
    """
    if not config.boards:
        yield None
        return
    from builder_host.measure.remote import open_boards

    stated = None
    if config.target not in ("auto", "host-cpu"):
        stated = target_fingerprint(config.target)
    boards = open_boards(config.boards, config.link_key, progress, stated, config.target)
    try:
        yield boards
    finally:
        boards.close()


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    pass


def resolve_target(target: str) -> tuple[DeviceFingerprint, str]:
    """Fingerprint of a target, and the device of this machine that it is.

    Args:
        target: as in `BuilderConfig`.

    Returns:
        The second item is `cpu`, `cuda:N`, or empty for a device that is not here.

    Raises:
        TargetError: unknown board, no such GPU, or a fingerprint file that cannot be read.
    """
    gpu = re.fullmatch(r"cuda(?::(\d+))?", target)
    if gpu is not None:
        number = int(gpu[1] or 0)
        return gpu_fingerprint(number), f"{_GPU}{number}"
    stated = None if target == "auto" else target_fingerprint(target)
    if stated is None:
        return local_fingerprint(), "cpu"
    if stated.device_kind == "cuda":
        found = local_gpu(stated)
        return stated, "" if found is None else f"{_GPU}{found}"
    return stated, "" if compare(stated, local_fingerprint()) else "cpu"


def _load_cache(config: BuilderConfig) -> TimingCache:
    if config.timing_cache is None:
        return TimingCache()
    if not Path(config.timing_cache).exists():
        if config.is_strict_cache:
            raise BuilderError(f"strict build: no timing cache at {config.timing_cache}")
        return TimingCache()
    return load_timing_cache(config.timing_cache)


def _save_cache(config: BuilderConfig, cache: TimingCache) -> None:
    if config.timing_cache is not None and not config.is_strict_cache:
        cache.save(config.timing_cache)


def _provenance(
    network: Network, config: BuilderConfig, backend: Backend, selections: Any
) -> dict[str, str]:
    from builder_host import __version__

    predicted = sum(1 for s in selections if s.timing is None)
    return {
        "builder": f"edgeplan {__version__}",
        "network": network.name,
        "precision": config.precision,
        "toolchain": backend.version,
        "tactics": "measured" if predicted == 0 else f"{predicted} predicted by the cost model",
        "threads": str(config.num_threads or "all cores"),
    }
