"""Builder and configuration under TensorRT's names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder_host.builder import build
from builder_host.config import BuilderConfig
from builder_host.errors import BuilderError, TargetError
from builder_host.measure.local import gpu_fingerprint
from builder_host.network.network import Network
from builder_host.tensorrt.calibrators import IInt8Calibrator, table_of
from builder_host.tensorrt.enums import (
    BuilderFlag,
    DeviceType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
)
from builder_host.tensorrt.network import INetworkDefinition
from planformat.writer import plan_bytes
from runtime_edge.device.select import open_device
from runtime_edge.tensorrt.engine import IMPLICIT_BATCH, ICudaEngine, Runtime
from runtime_edge.tensorrt.interfaces import IErrorRecorder, ILogger, LogSeverity

_WITHOUT_MEANING = {
    BuilderFlag.DEBUG: "edgeplan compare looks at every layer",
    BuilderFlag.GPU_FALLBACK: "everything runs on the GPU",
    BuilderFlag.STRICT_TYPES: "precision rules are always obeyed",
    BuilderFlag.OBEY_PRECISION_CONSTRAINTS: "precision rules are always obeyed",
    BuilderFlag.PREFER_PRECISION_CONSTRAINTS: "precision rules are always obeyed",
    BuilderFlag.REFIT: "build again, the timing cache makes it quick",
    BuilderFlag.SPARSE_WEIGHTS: "there are no kernels for structured sparsity",
    BuilderFlag.SAFETY_SCOPE: "there is no safety-certified runtime",
}


class ITimingCache:
    """Timings of kernels; `serialize` gives what `create_timing_cache` takes."""

    def __init__(self, content: bytes) -> None:
        """Hold a cache file's content."""
        self.content = content

    def serialize(self) -> bytes:
        """The content."""
        return self.content

    def combine(self, other: ITimingCache, ignore_mismatch: bool = False) -> bool:
        """Take the other's timings too."""
        from builder_host.tune.timing_cache import parse_timing_cache

        del ignore_mismatch
        own = parse_timing_cache(self.content.decode().splitlines(), "timing cache")
        own.merge(parse_timing_cache(other.content.decode().splitlines(), "timing cache"))
        self.content = own.text().encode()
        return True


class IOptimizationProfile:
    """Shapes of a profile; `opt` is what is built, `min` and `max` when they differ."""

    def __init__(self) -> None:
        """Nothing is set yet."""
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None:
        """Shapes of an input."""
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def get_shape(self, input: str) -> list[tuple[int, ...]]:
        """Shapes of an input."""
        return list(self.shapes.get(input, ()))


class IBuilderConfig:
    """Options of a build."""

    def __init__(self) -> None:
        """Defaults: float32, 256 MiB of workspace."""
        self.flags = 0
        self.max_workspace_size = 256 << 20
        self.int8_calibrator: IInt8Calibrator | None = None
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.DETAILED
        self.progress_monitor: Any = None
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.profile_stream = 0
        self.avg_timing_iterations = 1
        self.min_timing_iterations = 1
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        """Set a flag."""
        self.flags |= 1 << flag.value

    def clear_flag(self, flag: BuilderFlag) -> None:
        """Clear a flag."""
        self.flags &= ~(1 << flag.value)

    def get_flag(self, flag: BuilderFlag) -> bool:
        """Whether a flag is set."""
        return bool(self.flags >> flag.value & 1)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """Limit the workspace; other pools do not exist here."""
        if pool is MemoryPoolType.WORKSPACE:
            self.max_workspace_size = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        """Limit of a pool in bytes."""
        return self.max_workspace_size if pool is MemoryPoolType.WORKSPACE else 0

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Add shapes; returns the profile's number."""
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        """Profiles that were added."""
        return len(self._profiles)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        """A cache from an earlier one's content, or an empty one."""
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool = False) -> bool:
        """Read timings from a cache, and extend it."""
        del ignore_mismatch
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        """The cache."""
        return self._cache


class Builder:
    """Makes networks, configurations and engines.

    Attributes:
        target: what to build for: a GPU of this machine where there is one, else its CPU; the
            environment's EDGEPLAN_TARGET or the argument name another.
        max_batch_size: of implicit-batch networks; None until it is set.
    """

    def __init__(self, logger: ILogger, target: str | None = None) -> None:
        """Choose the target."""
        self.logger = logger
        self.target = target or os.environ.get("EDGEPLAN_TARGET") or _default_target()
        self.max_batch_size: int | None = None
        self.max_workspace_size = 256 << 20
        self.fp16_mode = False
        self.int8_mode = False
        self.strict_type_constraints = False
        self.int8_calibrator: IInt8Calibrator | None = None
        self.error_recorder: IErrorRecorder | None = None
        self.gpu_allocator: Any = None
        self.debug_sync = False
        self.num_DLA_cores = 0

    @property
    def platform_has_fast_fp16(self) -> bool:
        """Whether the target computes in float16."""
        return self.target.startswith("cuda")

    platform_has_fast_int8 = True
    platform_has_tf32 = platform_has_fast_fp16

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """An empty network.

        Without the EXPLICIT_BATCH bit, and with `max_batch_size` set, dimensions leave out the
        batch, as in TensorRT 1 to 7; else they hold it, as since TensorRT 10.
        """
        is_explicit = bool(flags >> NetworkDefinitionCreationFlag.EXPLICIT_BATCH & 1)
        return INetworkDefinition(is_explicit=is_explicit, batch=lambda: self.max_batch_size)

    def create_builder_config(self) -> IBuilderConfig:
        """Options of a build."""
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Shapes of a profile."""
        return IOptimizationProfile()

    def build_cuda_engine(self, network: INetworkDefinition) -> ICudaEngine | None:
        """An engine, with the builder's own options (TensorRT 5)."""
        config = IBuilderConfig()
        config.max_workspace_size = self.max_workspace_size
        config.int8_calibrator = self.int8_calibrator
        for is_set, flag in (
            (self.fp16_mode, BuilderFlag.FP16),
            (self.int8_mode, BuilderFlag.INT8),
            (self.strict_type_constraints, BuilderFlag.STRICT_TYPES),
        ):
            if is_set:
                config.set_flag(flag)
        return self.build_engine(network, config)

    def build_engine(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> ICudaEngine | None:
        """An engine; None (and a logged error) when it cannot be built."""
        plan = self.build_serialized_network(network, config)
        return None if plan is None else Runtime(self.logger).deserialize_cuda_engine(plan)

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        """A plan's bytes; None (and a logged error) when it cannot be built."""
        try:
            return self._build(network, config)
        except BuilderError as error:
            self.logger.log(LogSeverity.ERROR, str(error))
            if self.error_recorder is not None:
                self.error_recorder.report_error(2, str(error))
            return None

    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        """Whether every layer's inputs obey its rules."""
        del config
        try:
            network.emit(self.max_batch_size if network.has_implicit_batch_dimension else None)
        except BuilderError as error:
            self.logger.log(LogSeverity.ERROR, str(error))
            return False
        return True

    def __enter__(self) -> Builder:
        """The builder itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
        for flag, reason in _WITHOUT_MEANING.items():
            if config.get_flag(flag):
                self.logger.log(LogSeverity.WARNING, f"{flag.name} changes nothing: {reason}")
        networks = self._networks(network, config)
        first = next(iter(networks.values()))
        ranges = network.dynamic_ranges(
            network.emit(self.max_batch_size if self._is_implicit(network) else None)[1]
        )
        with tempfile.TemporaryDirectory(prefix="edgeplan-timings-") as folder:
            cache = Path(folder) / "timings.cache"
            if config._cache is not None and config._cache.content:
                cache.write_bytes(config._cache.content)
            options = BuilderConfig(
                target=self.target,
                timing_cache=cache,
                workspace_limit_bytes=config.max_workspace_size,
                measure="local" if config.builder_optimization_level > 0 else "none",
                precision=self._precision(config),
                is_checked=not (config.get_flag(BuilderFlag.INT8) or self._is_half(config)),
            )
            if options.precision in ("int8", "best") and config.get_flag(BuilderFlag.INT8):
                if config.int8_calibrator is not None:
                    table = table_of(config.int8_calibrator, first, open_device(self._device()))
                    options = replace(options, calibration=table)
                if ranges:
                    options = replace(options, dynamic_ranges=ranges)
            built = build(networks if len(networks) > 1 else first, options)
            if config._cache is not None and cache.exists():
                config._cache.content = cache.read_bytes()
        plan = built.plan
        if self._is_implicit(network):
            plan = replace(plan, provenance={**plan.provenance, IMPLICIT_BATCH: "1"})
        return plan_bytes(plan)

    def _is_implicit(self, network: INetworkDefinition) -> bool:
        return network.has_implicit_batch_dimension

    def _networks(self, network: INetworkDefinition, config: IBuilderConfig) -> dict[str, Network]:
        """The network by profile: batch 1 and the largest, or the shapes of the profiles."""
        if self._is_implicit(network):
            sizes = dict.fromkeys((self.max_batch_size or 1, 1))
            return {f"batch{size}": network.emit(size)[0] for size in sizes}
        if not config._profiles:
            return {"default": network.emit(None)[0]}
        found: dict[str, Network] = {}
        known: list[dict[str, tuple[int, ...]]] = []
        for number, profile in enumerate(config._profiles):
            for kind, which in (("opt", 1), ("min", 0), ("max", 2)):
                shapes = {name: triple[which] for name, triple in profile.shapes.items()}
                if shapes not in known:
                    known.append(shapes)
                    found[f"{kind}{number}"] = network.emit(None, shapes)[0]
        return found

    def _is_half(self, config: IBuilderConfig) -> bool:
        return config.get_flag(BuilderFlag.FP16) and self.platform_has_fast_fp16

    def _precision(self, config: IBuilderConfig) -> str:
        if config.get_flag(BuilderFlag.FP16) and not self.platform_has_fast_fp16:
            self.logger.log(
                LogSeverity.WARNING,
                "FP16: this CPU target has no float16 kernels; layers stay in float32",
            )
        has_int8 = config.get_flag(BuilderFlag.INT8)
        if has_int8 and self._is_half(config):
            return "best"
        if has_int8:
            return "int8"
        if config.get_flag(BuilderFlag.BF16):
            return "bf16"
        return "fp16" if self._is_half(config) else "fp32"

    def _device(self) -> str:
        return self.target if self.target.startswith("cuda") else "cpu"


def _default_target() -> str:
    try:
        gpu_fingerprint(0)
    except TargetError:
        return "host-cpu"
    return "cuda:0"
