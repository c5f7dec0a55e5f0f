"""Enumerations of TensorRT's building API, and what they mean here."""

from __future__ import annotations

import enum

from builder_host.network.padding_mode import PaddingMode

__all__ = [
    "ActivationType",
    "BuilderFlag",
    "CalibrationAlgoType",
    "DeviceType",
    "ElementWiseOperation",
    "MatrixOperation",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PaddingMode",
    "PoolingType",
    "ProfilingVerbosity",
    "ReduceOperation",
    "ScaleMode",
    "TopKOperation",
    "UnaryOperation",
]


class ActivationType(enum.Enum):
    """Activations; the value is edgeplan's name."""

    RELU = "relu"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    LEAKY_RELU = "leaky_relu"
    ELU = "elu"
    SELU = "selu"
    SOFTSIGN = "softsign"
    SOFTPLUS = "softplus"
    CLIP = "clip"
    HARD_SIGMOID = "hard_sigmoid"
    SCALED_TANH = "scaled_tanh"
    THRESHOLDED_RELU = "thresholded_relu"
    GELU_ERF = "gelu_erf"
    GELU_TANH = "gelu_tanh"


class PoolingType(enum.Enum):
    """Poolings."""

    MAX = "max"
    AVERAGE = "average"


class ScaleMode(enum.Enum):
    """How the coefficients of a scale spread."""

    UNIFORM = "uniform"
    CHANNEL = "channel"
    ELEMENTWISE = "elementwise"


class ElementWiseOperation(enum.Enum):
    """Operations on two tensors; the value is edgeplan's name."""

    SUM = "add"
    PROD = "mul"
    MAX = "max"
    MIN = "min"
    SUB = "sub"
    DIV = "div"
    POW = "pow"
    FLOOR_DIV = "floor_div"
    AND = "and"
    OR = "or"
    XOR = "xor"
    EQUAL = "eq"
    GREATER = "gt"
    LESS = "lt"


class UnaryOperation(enum.Enum):
    """Operations on one tensor; the value is edgeplan's name."""

    EXP = "exp"
    LOG = "log"
    SQRT = "sqrt"
    RECIP = "recip"
    ABS = "abs"
    NEG = "neg"
    SIN = "sin"
    COS = "cos"
    TAN = "tan"
    SINH = "sinh"
    COSH = "cosh"
    ASIN = "asin"
    ACOS = "acos"
    ATAN = "atan"
    ASINH = "asinh"
    ACOSH = "acosh"
    ATANH = "atanh"
    CEIL = "ceil"
    FLOOR = "floor"
    ERF = "erf"
    NOT = "not"
    SIGN = "sign"
    ROUND = "round"


class ReduceOperation(enum.Enum):
    """Reductions."""

    SUM = "sum"
    PROD = "prod"
    MAX = "max"
    MIN = "min"
    AVG = "mean"


class TopKOperation(enum.Enum):
    """Largest or smallest."""

    MAX = "max"
    MIN = "min"


class MatrixOperation(enum.Enum):
    """What is done to a factor."""

    NONE = 0
    TRANSPOSE = 1
    VECTOR = 2


class BuilderFlag(enum.Enum):
    """Flags of a build; those without meaning here change nothing."""

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
