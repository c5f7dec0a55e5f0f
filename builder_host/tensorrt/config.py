"""IBuilderConfig, optimization profiles and timing caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from builder_host.errors import TimingCacheError
from builder_host.tensorrt.build_enums import (
    BuilderFlag,
    DeviceType,
    EngineCapability,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    PreviewFeature,
    ProfilingVerbosity,
    RuntimePlatform,
    TilingOptimizationLevel,
)
from builder_host.tensorrt.calibrators import IInt8Calibrator
from builder_host.tensorrt.layers.base import ILayer
from builder_host.tensorrt.refused import CACHE, CONFIG, PROFILE
from builder_host.tune.timing_cache import TimingCache, parse_timing_cache
from runtime_edge.tensorrt.refused import Refusing

_OBEYED = "precision rules are always obeyed"
_NO_KERNELS = "there are no kernels for it; precisions are in docs/precision.md"
_NO_LEAN = "there is one runtime: it loads all plans of its major format version"

# Flags that change nothing, and why. A build that has them set says so.
WITHOUT_MEANING: Mapping[BuilderFlag, str] = {
    BuilderFlag.DEBUG: "edgeplan compare looks at every layer",
    BuilderFlag.GPU_FALLBACK: "everything runs on the GPU",
    BuilderFlag.STRICT_TYPES: _OBEYED,
    BuilderFlag.OBEY_PRECISION_CONSTRAINTS: _OBEYED,
    BuilderFlag.PREFER_PRECISION_CONSTRAINTS: _OBEYED,
    BuilderFlag.REFIT_INDIVIDUAL: "with REFIT every weight may be others",
    BuilderFlag.WEIGHT_STREAMING: "weights stay in device memory",
    BuilderFlag.SPARSE_WEIGHTS: "there are no kernels for structured sparsity",
    BuilderFlag.SAFETY_SCOPE: "there is no safety-certified runtime",
    BuilderFlag.DIRECT_IO: "bindings are LINEAR",
    BuilderFlag.REJECT_EMPTY_ALGORITHMS: "there is no algorithm selector",
    BuilderFlag.ENABLE_TACTIC_HEURISTIC: "builder_optimization_level = 0 ranks by the cost model",
    BuilderFlag.VERSION_COMPATIBLE: _NO_LEAN,
    BuilderFlag.EXCLUDE_LEAN_RUNTIME: _NO_LEAN,
    BuilderFlag.FP8: _NO_KERNELS,
    BuilderFlag.FP4: _NO_KERNELS,
    BuilderFlag.INT4: _NO_KERNELS,
    BuilderFlag.DISABLE_COMPILATION_CACHE: "compiled kernels are kept by their source's hash",
    BuilderFlag.STRICT_NANS: "no choice of a build depends on it",
    BuilderFlag.MONITOR_MEMORY: "the report of edgeplan build has the figures",
    BuilderFlag.EDITABLE_TIMING_CACHE: "timing caches are text",
    BuilderFlag.DISTRIBUTIVE_INDEPENDENCE: "no choice of a build depends on it",
}
# Options whose setting changes nothing, and why.
_IDLE_OPTIONS: Mapping[str, str] = {
    "DLA_core": "there is no DLA",
    "avg_timing_iterations": "kernels are timed until the median is steady",
    "default_device_type": "there is no DLA",
    "engine_capability": "there is one kind of plan",
    "hardware_compatibility_level": "a plan is for one device; build one per device",
    "l2_limit_for_tiling": "tiles are tactics, which are timed",
    "max_aux_streams": "a run uses the one stream that it is given",
    "max_num_tactics": "every tactic of a kernel family is a candidate",
    "min_timing_iterations": "kernels are timed until the median is steady",
    "profile_stream": "kernels are timed on a stream of their own",
    "profiling_verbosity": "plans tell all",
    "runtime_platform": "a target says what it runs on",
    "tiling_optimization_level": "tiles are tactics, which are timed",
}


class IProgressMonitor:
    """Is told how far a build is; override what is needed."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins, inside another one if that is named."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; False ends the build."""
        del phase_name, step
        return True

    def phase_finish(self, phase_name: str) -> None:
        """A phase is over."""


class ITimingCache(Refusing):
    """Timings of kernels; `serialize` gives what `create_timing_cache` takes."""

    refused = CACHE

    def __init__(self, content: bytes) -> None:
        """Hold a cache file's content."""
        self.content = content

    def serialize(self) -> bytes:
        """The content."""
        return self.content

    def combine(self, other: ITimingCache, ignore_mismatch: bool = False) -> bool:
        """Take the other's timings too; each is kept with the device that it was made on.

        Raises:
            TimingCacheError: one of both is no timing cache of edgeplan.
        """
        del ignore_mismatch
        own = self._timings()
        own.merge(other._timings())
        self.content = own.text().encode()
        return True

    def _timings(self) -> TimingCache:
        if not self.content:
            return TimingCache()
        try:
            lines = self.content.decode().splitlines()
        except UnicodeDecodeError as error:
            raise TimingCacheError(f"not a timing cache of edgeplan: {error}") from error
        return parse_timing_cache(lines, "timing cache")

    def reset(self) -> bool:
        """Forget all timings."""
        self.content = b""
        return True


class IOptimizationProfile(Refusing):
    """Shapes of a profile; `opt` is what is built, `min` and `max` when they differ."""

    refused = PROFILE

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

    def __bool__(self) -> bool:
        """Whether every shape lies between its smallest and its largest."""
        return all(
            len(low) == len(best) == len(high)
            and all(a <= b <= c for a, b, c in zip(low, best, high, strict=True))
            for low, best, high in self.shapes.values()
        )


class IBuilderConfig(Refusing):
    """Options of a build.

    Attributes:
        is_checked: edgeplan's own: compare the plan with a float64 evaluation of the network before
            it is handed over. Plugins without a reference need it off.
    """

    refused = CONFIG

    def __init__(self) -> None:
        """Defaults: float32, 256 MiB of workspace."""
        self.reset()

    def reset(self) -> None:
        """All options as they were."""
        self.flags = 0
        self.max_workspace_size = 256 << 20
        self.int8_calibrator: IInt8Calibrator | None = None
        self.builder_optimization_level = 3
        self.progress_monitor: IProgressMonitor | None = None
        self.is_checked = True
        self.DLA_core = -1
        self.avg_timing_iterations = 1
        self.default_device_type = DeviceType.GPU
        self.engine_capability = EngineCapability.STANDARD
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.l2_limit_for_tiling = -1
        self.max_aux_streams = -1
        self.max_num_tactics = -1
        self.min_timing_iterations = 1
        self.profile_stream = 0
        self.profiling_verbosity = ProfilingVerbosity.DETAILED
        self.runtime_platform = RuntimePlatform.SAME_AS_BUILD
        self.tiling_optimization_level = TilingOptimizationLevel.NONE
        self._profiles: list[IOptimizationProfile] = []
        self._calibration_profile: IOptimizationProfile | None = None
        self._cache: ITimingCache | None = None
        self._notes: dict[str, str] = {}
        self._defaults = {name: getattr(self, name) for name in _IDLE_OPTIONS}

    # --- flags and pools ------------------------------------------------------------------

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
        else:
            self._notes[f"memory pool {pool.name}"] = "only WORKSPACE exists here"

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        """Limit of a pool in bytes."""
        return self.max_workspace_size if pool is MemoryPoolType.WORKSPACE else 0

    # --- profiles -------------------------------------------------------------------------

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Add shapes; returns the profile's number."""
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        """Profiles that were added."""
        return len(self._profiles)

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        """Shapes of the calibrator's batches, where they are none of a profile's."""
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> IOptimizationProfile | None:
        """The profile that was set."""
        return self._calibration_profile

    # --- timing cache -----------------------------------------------------------------------

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        """A cache from an earlier one's content, or an empty one."""
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool = False) -> bool:
        """Read timings from a cache, and extend it; those of other devices are left alone."""
        del ignore_mismatch
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        """The cache."""
        return self._cache

    # --- accepted, and said to change nothing --------------------------------------------------

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        """Kernels come from edgeplan's own families alone."""
        self._notes["tactic sources"] = f"{tactic_sources:#b}: all kernels are edgeplan's own"
        return True

    def get_tactic_sources(self) -> int:
        """None of TensorRT's sources."""
        return 0

    def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None:
        """There are no previews."""
        self._notes[f"preview {feature.name}={enable}"] = "there are no previews"

    def get_preview_feature(self, feature: PreviewFeature) -> bool:
        """There are no previews."""
        del feature
        return False

    def set_device_type(self, layer: ILayer, device_type: DeviceType) -> None:
        """Layers run where the plan does."""
        if device_type is not DeviceType.GPU:
            self._notes[f"'{layer.name}' on {device_type.name}"] = "there is no DLA"

    def get_device_type(self, layer: ILayer) -> DeviceType:
        """Where a layer runs."""
        del layer
        return DeviceType.GPU

    def is_device_type_set(self, layer: ILayer) -> bool:
        """Never."""
        del layer
        return False

    def reset_device_type(self, layer: ILayer) -> None:
        """Nothing to reset."""

    def can_run_on_DLA(self, layer: ILayer) -> bool:  # noqa: N802 - the API's name
        """Never: there is no DLA."""
        del layer
        return False

    def warnings(self) -> Iterator[str]:
        """What was set and changes nothing, a sentence each."""
        for flag, reason in WITHOUT_MEANING.items():
            if self.get_flag(flag):
                yield f"{flag.name} changes nothing: {reason}"
        for name, reason in _IDLE_OPTIONS.items():
            if getattr(self, name) != self._defaults[name]:
                yield f"{name} = {getattr(self, name)} changes nothing: {reason}"
        for name, reason in self._notes.items():
            yield f"{name} changes nothing: {reason}"
