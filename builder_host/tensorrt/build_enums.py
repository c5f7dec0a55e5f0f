"""Enumerations of TensorRT's builder and its configuration."""

from __future__ import annotations

import enum

__all__ = [
    "BuilderFlag",
    "CalibrationAlgoType",
    "DeviceType",
    "EngineCapability",
    "HardwareCompatibilityLevel",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "RuntimePlatform",
    "TacticSource",
    "TilingOptimizationLevel",
    "WeightsRole",
]


class BuilderFlag(enum.IntEnum):
    """Flags of a build; `config.WITHOUT_MEANING` says which change nothing, and why."""

    FP16 = 0
    INT8 = 1
    DEBUG = 2
    GPU_FALLBACK = 3
    STRICT_TYPES = 4
    REFIT = 5
    DISABLE_TIMING_CACHE = 6
    TF32 = 7
    SPARSE_WEIGHTS = 8
    SAFETY_SCOPE = 9
    OBEY_PRECISION_CONSTRAINTS = 10
    PREFER_PRECISION_CONSTRAINTS = 11
    BF16 = 12
    DIRECT_IO = 13
    REJECT_EMPTY_ALGORITHMS = 14
    ENABLE_TACTIC_HEURISTIC = 15
    VERSION_COMPATIBLE = 16
    EXCLUDE_LEAN_RUNTIME = 17
    FP8 = 18
    FP4 = 19
    INT4 = 20
    ERROR_ON_TIMING_CACHE_MISS = 21
    DISABLE_COMPILATION_CACHE = 22
    STRIP_PLAN = 23
    REFIT_IDENTICAL = 24
    REFIT_INDIVIDUAL = 25
    WEIGHT_STREAMING = 26
    STRICT_NANS = 27
    MONITOR_MEMORY = 28
    EDITABLE_TIMING_CACHE = 29
    DISTRIBUTIVE_INDEPENDENCE = 30


class MemoryPoolType(enum.Enum):
    """Pools that a build may limit."""

    WORKSPACE = 0
    DLA_MANAGED_SRAM = 1
    DLA_LOCAL_DRAM = 2
    DLA_GLOBAL_DRAM = 3
    TACTIC_DRAM = 4
    TACTIC_SHARED_MEMORY = 5


class NetworkDefinitionCreationFlag(enum.IntEnum):
    """Bits of `create_network`'s flags."""

    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class ProfilingVerbosity(enum.Enum):
    """How much an engine tells; plans tell all."""

    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class DeviceType(enum.Enum):
    """Where layers run."""

    GPU = 0
    DLA = 1


class CalibrationAlgoType(enum.Enum):
    """How ranges are found; the value is edgeplan's name."""

    LEGACY_CALIBRATION = "legacy"
    ENTROPY_CALIBRATION = "entropy1"
    ENTROPY_CALIBRATION_2 = "entropy"
    MINMAX_CALIBRATION = "min-max"


class EngineCapability(enum.Enum):
    """Kinds of engines; plans are STANDARD."""

    STANDARD = 0
    DEFAULT = STANDARD
    SAFETY = 1
    SAFE_GPU = SAFETY
    DLA_STANDALONE = 2
    SAFE_DLA = DLA_STANDALONE


class HardwareCompatibilityLevel(enum.Enum):
    """How many devices an engine is for; a plan is for one."""

    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class RuntimePlatform(enum.Enum):
    """Operating systems; the target says which."""

    SAME_AS_BUILD = 0
    WINDOWS_AMD64 = 1


class TilingOptimizationLevel(enum.Enum):
    """How long tilings are looked for; here they are tactics."""

    NONE = 0
    FAST = 1
    MODERATE = 2
    FULL = 3


class TacticSource(enum.IntEnum):
    """Libraries of kernels; all kernels of plans are edgeplan's own."""

    CUBLAS = 0
    CUBLAS_LT = 1
    CUDNN = 2
    EDGE_MASK_CONVOLUTIONS = 3
    JIT_CONVOLUTIONS = 4


class PreviewFeature(enum.Enum):
    """Previews of TensorRT."""

    FASTER_DYNAMIC_SHAPES_0805 = 0
    DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805 = 1
    PROFILE_SHARING_0806 = 2
    ALIASED_PLUGIN_IO_10_03 = 3
    RUNTIME_ACTIVATION_RESIZE_10_10 = 4


class WeightsRole(enum.Enum):
    """What weights are to their layer."""

    KERNEL = 0
    BIAS = 1
    SHIFT = 2
    SCALE = 3
    CONSTANT = 4
    ANY = 5
