"""The build from top to bottom: Network -> passes -> layouts -> tuning -> Plan."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builder_host.backend import Backend, CpuBackend, make_backend
from builder_host.emit import TunedOperation, emit_plan
from builder_host.errors import BuilderError
from builder_host.kernels.choice import FamilyChoice
from builder_host.measure.bundle import write_bundle
from builder_host.measure.local import LocalDevice, local_fingerprint
from builder_host.network.copying import copy_network
from builder_host.network.network import Network
from builder_host.passes import layout_assignment, narrow_float
from builder_host.passes.pipeline import run_passes
from builder_host.placement import Placement
from builder_host.report import BuildReport, make_report
from builder_host.target import target_fingerprint, target_hardware
from builder_host.trace import TraceWriter
from builder_host.tune.select import Tuner
from builder_host.tune.timing_cache import (
    TimingCache,
    TimingKey,
    digest,
    load_timing_cache,
)
from builder_host.verification import (
    CANARY_SEED,
    TOLERANCE_OF_PRECISION,
    TOLERANCE_OF_SAME_CODE,
    check_outputs,
    reference_outputs,
    with_canary,
)
from planformat.fingerprint import DeviceFingerprint, compare, fingerprint_to_json
from planformat.plan import Plan
from planformat.writer import plan_bytes, save_plan

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class BuilderConfig:
    """Options of a build, checked when made.

    Attributes:
        target: `host-cpu` or `auto` (this machine), or the path of a fingerprint file that
            `edgeplan probe --json` wrote on the device.
        timing_cache: file to read timings from and add new ones to, or None.
        is_strict_cache: a timing that the cache lacks is an error instead of a measurement.
        workspace_limit_bytes: candidates that need more shared workspace are dropped.
        num_threads: worker threads that the plan is tuned for; None: every core of the target.
        measure: `local` times candidates here; `none` takes what the timing cache holds and ranks
            the rest by the cost model.
        trace_dir: where the network is written after each pass, or None.
        num_jobs: compilers at once; None: as many as there are cores here.
        compiler: `zig` (from pip), `gcc`, `clang` or a path.
        artifact_dir: store of generated code; None: the user's cache folder.
        precision: `fp32`, or `fp16` (CUDA: stored in float16, accumulated in float32).
        is_checked: compare the plan with the float64 reference before it is handed over; where the
            plan cannot run here, the reference becomes the expected output of its canary.
    """

    target: str = "host-cpu"
    timing_cache: str | os.PathLike[str] | None = None
    is_strict_cache: bool = False
    workspace_limit_bytes: int = 256 << 20
    num_threads: int | None = None
    measure: str = "local"
    trace_dir: str | os.PathLike[str] | None = None
    num_jobs: int | None = None
    compiler: str = "zig"
    artifact_dir: str | os.PathLike[str] | None = None
    precision: str = "fp32"
    is_checked: bool = True

    def __post_init__(self) -> None:
        if self.measure not in ("local", "none"):
            raise BuilderError(f"measure is '{self.measure}'; expected 'local' or 'none'")
        if self.precision not in ("fp32", "fp16"):
            raise BuilderError(f"precision is '{self.precision}'; expected 'fp32' or 'fp16'")
        for name in ("num_threads", "num_jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuilderError(f"{name} is {value}; expected at least 1")
        if self.workspace_limit_bytes < 0:
            raise BuilderError(f"workspace_limit_bytes is {self.workspace_limit_bytes}")
        if self.is_strict_cache and self.timing_cache is None:
            raise BuilderError("a strict build needs a timing cache; name its file")


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A finished plan and the report of how it was made."""

    plan: Plan
    report: BuildReport = field(repr=False)

    def save(self, path: str | os.PathLike[str], *, signing_key: bytes | None = None) -> None:
        """Write the plan file atomically, signed when a key is given."""
        save_plan(self.plan, path, signing_key=signing_key)

    def to_bytes(self, *, signing_key: bytes | None = None) -> bytes:
        """The plan file's bytes."""
        return plan_bytes(self.plan, signing_key=signing_key)


def build(
    network: Network, config: BuilderConfig | None = None, *, progress: Progress | None = None
) -> BuiltPlan:
    """Build a plan.

    Args:
        network: what an importer or the network-definition API made; it is left as it is.
        config: options; default: this machine's CPU.
        progress: called with a phase's name, items done and items in all.

    Raises:
        BuilderError: a subclass names what cannot be done and why.
    """
    job = _Build(network, config or BuilderConfig(), progress or _no_progress)
    return job.finish()


def write_tuning_bundle(
    network: Network,
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
    config = replace(config or BuilderConfig(), measure="none")
    return _Build(network, config, progress or _no_progress).write_bundle(path)


class _Build:
    """The stages of one build; the constructor goes as far as the list of problems."""

    def __init__(self, network: Network, config: BuilderConfig, progress: Progress) -> None:
        self.config = config
        self.progress = progress
        self.network = network = copy_network(network)
        _check_bindings(network)
        self.fingerprint, is_local = resolve_target(config.target)
        self.backend = make_backend(
            self.fingerprint,
            compiler=config.compiler,
            artifact_dir=config.artifact_dir,
            jobs=config.num_jobs or os.cpu_count() or 1,
            hardware=target_hardware(config.target),
        )
        _check_measuring(config, _is_timed_here(self.backend, is_local), self.fingerprint)
        self.reference = reference_outputs(network) if config.is_checked else None

        trace = TraceWriter(config.trace_dir) if config.trace_dir is not None else None
        run_passes(network, trace)
        if config.precision == "fp16":
            narrow_float.run(network)
        self.flush_bytes = self.backend.target.flush_bytes(_constant_bytes(network))
        self.device = _local_device(self.backend, is_local, progress, self.flush_bytes)
        self.num_workers = config.num_threads or self.backend.default_workers
        choice = FamilyChoice(self.backend.families, self.backend.target)
        formats = layout_assignment.run(network, choice, self.num_workers)
        if trace is not None:
            trace.layouts(network, formats)
        self.placement = Placement(network, formats, choice, self.num_workers)
        self.operations = self.placement.operations()
        self.cache = _load_cache(config)
        self.tuner = Tuner(
            choice,
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
        rows = self.tuner.rows(op.problem for op in self.operations)
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
        config, tuner, device = self.config, self.tuner, self.device
        selections = tuner.select(op.problem for op in self.operations)
        _save_cache(config, self.cache)
        tuned = []
        for operation in self.operations:
            selection = selections[operation.problem.text()]
            program = selection.candidate.program(self.backend.target)
            tuned.append(TunedOperation(operation, selection, program))
        self.progress("emit", 0, 1)
        plan = emit_plan(
            self.network,
            self.placement,
            tuned,
            backend=self.backend,
            fingerprint=self.fingerprint,
            provenance=_provenance(self.network, config, self.backend, selections.values()),
        )
        accuracy: dict[str, float] = {}
        if device is not None:
            outputs = device.run_canary(plan, CANARY_SEED)
            if self.reference is not None:
                accuracy = check_outputs(self.reference, outputs)
            latency_us = _plan_latency(plan, device, tuner, config)
            plan = with_canary(plan, outputs, latency_us, TOLERANCE_OF_SAME_CODE)
            _save_cache(config, self.cache)
        elif self.reference is not None:
            tolerance = TOLERANCE_OF_PRECISION[config.precision]
            plan = with_canary(plan, self.reference, None, tolerance)
        report = make_report(plan, tuned, tuner.summary, self.placement, accuracy)
        self.progress("done", 1, 1)
        return BuiltPlan(plan, report)


def _constant_bytes(network: Network) -> int:
    return sum(t.values.nbytes for t in network.tensors() if t.values is not None)


def _is_timed_here(backend: Backend, is_local: bool) -> bool:
    return is_local and isinstance(backend, CpuBackend)


def _local_device(
    backend: Backend, is_local: bool, progress: Progress, flush_bytes: int
) -> LocalDevice | None:
    if not is_local or not isinstance(backend, CpuBackend):
        return None
    return LocalDevice(backend.toolchain, progress, flush_bytes=flush_bytes)


def _check_measuring(
    config: BuilderConfig, is_timed_here: bool, fingerprint: DeviceFingerprint
) -> None:
    if config.precision == "fp16" and fingerprint.device_kind == "cpu":
        raise BuilderError("precision fp16 needs a CUDA target; CPU plans compute in float32")
    if config.measure == "local" and not is_timed_here and not config.is_strict_cache:
        raise BuilderError(
            f"target '{config.target}' is not this machine's CPU: its kernels cannot be timed "
            "here; use measure 'none', or a timing cache from the device with a strict build"
        )


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    pass


def resolve_target(target: str) -> tuple[DeviceFingerprint, bool]:
    """Fingerprint of a target, and whether that is this very machine.

    Raises:
        TargetError: unknown board, or a fingerprint file that cannot be read.
    """
    here = local_fingerprint()
    stated = None if target == "auto" else target_fingerprint(target)
    if stated is None:
        return here, True
    return stated, not compare(stated, here)


def _check_bindings(network: Network) -> None:
    if not network.outputs:
        raise BuilderError("the network has no output; mark one")
    for tensor in network.outputs:
        if tensor.producer is None and not tensor.is_constant and tensor not in network.inputs:
            raise BuilderError(f"output '{tensor.name}' is computed by no layer")


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


def _plan_latency(
    plan: Plan, device: LocalDevice, tuner: Tuner, config: BuilderConfig
) -> float | None:
    """Median latency of the whole plan: from the cache, else measured now."""
    variant = plan.variants[0]
    code = hashlib.sha256(variant.code_objects[0].data).hexdigest()
    steps = digest(code, *(repr(step) for step in variant.profiles[0].steps))
    key = TimingKey(
        tuner.fingerprint_id, f"plan:{steps}", "plan", "plan", tuner.backend.identity, "warm"
    )
    timing = tuner.cache.get(key)
    if timing is None and config.measure == "local" and not config.is_strict_cache:
        timing = device.time_plan(plan, CANARY_SEED)
        tuner.cache.put(key, timing)
    return timing.median_us if timing is not None else None


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
