"""Enumerations of TensorRT's building API, and what they mean here."""

from __future__ import annotations

import enum

from builder_host.network.padding_mode import PaddingMode

__all__ = [
    "ActivationType",
    "BoundingBoxFormat",
    "BuilderFlag",
    "CalibrationAlgoType",
    "CumulativeOperation",
    "DeviceType",
    "ElementWiseOperation",
    "EngineCapability",
    "FillOperation",
    "GatherMode",
    "HardwareCompatibilityLevel",
    "InterpolationMode",
    "LoopOutput",
    "MatrixOperation",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PaddingMode",
    "PoolingType",
    "PreviewFeature",
    "ProfilingVerbosity",
    "RNNDirection",
    "RNNGateType",
    "RNNInputMode",
    "RNNOperation",
    "ReduceOperation",
    "ResizeCoordinateTransformation",
    "ResizeMode",
    "ResizeRoundMode",
    "ResizeSelector",
    "RuntimePlatform",
    "SampleMode",
    "ScaleMode",
    "ScatterMode",
    "SliceMode",
    "TacticSource",
    "TilingOptimizationLevel",
    "TopKOperation",
    "TripLimit",
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
    MAX_AVERAGE_BLEND = "blend"


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
    ISNAN = "isnan"
    ISINF = "isinf"


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


class GatherMode(enum.Enum):
    """How indices name what is gathered."""

    DEFAULT = 0
    ELEMENT = 1
    ND = 2


class ScatterMode(enum.Enum):
    """How indices name what is replaced."""

    ELEMENT = 0
    ND = 1


class SampleMode(enum.Enum):
    """What lies outside a tensor that is sliced or sampled."""

    STRICT_BOUNDS = 0
    DEFAULT = STRICT_BOUNDS
    WRAP = 1
    CLAMP = 2
    FILL = 3
    REFLECT = 4


SliceMode = SampleMode


class InterpolationMode(enum.Enum):
    """How values between elements are found; the value is edgeplan's name."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"


ResizeMode = InterpolationMode


class ResizeCoordinateTransformation(enum.Enum):
    """Where an element of the result lies in the input; the value is edgeplan's name."""

    ALIGN_CORNERS = "align_corners"
    ASYMMETRIC = "asymmetric"
    HALF_PIXEL = "half_pixel"


class ResizeSelector(enum.Enum):
    """What an axis of one element takes: what the formula says, or the first element."""

    FORMULA = 0
    UPPER = 1


class ResizeRoundMode(enum.Enum):
    """Which element is the nearest; the value is edgeplan's name."""

    HALF_UP = "round_prefer_ceil"
    HALF_DOWN = "round_prefer_floor"
    FLOOR = "floor"
    CEIL = "ceil"


class FillOperation(enum.Enum):
    """Rules by which a tensor is made."""

    LINSPACE = 0
    RANDOM_UNIFORM = 1
    RANDOM_NORMAL = 2


class BoundingBoxFormat(enum.Enum):
    """Two corners, or centre and size."""

    CORNER_PAIRS = 0
    CENTER_SIZES = 1


class CumulativeOperation(enum.Enum):
    """Running sums."""

    SUM = "sum"


class TripLimit(enum.Enum):
    """What ends a loop."""

    COUNT = 0
    WHILE = 1


class LoopOutput(enum.Enum):
    """What leaves a loop."""

    LAST_VALUE = 0
    CONCATENATE = 1
    REVERSE = 2


class RNNOperation(enum.Enum):
    """Cells; the value is edgeplan's name."""

    RELU = "relu"
    TANH = "tanh"
    LSTM = "lstm"
    GRU = "gru"


class RNNDirection(enum.Enum):
    """One pass, or one in each direction."""

    UNIDIRECTION = 0
    BIDIRECTION = 1


class RNNInputMode(enum.Enum):
    """Whether the first layer has weights for its input, or adds it to each gate."""

    LINEAR = 0
    SKIP = 1


class RNNGateType(enum.Enum):
    """Gates of cells."""

    INPUT = 0
    OUTPUT = 1
    FORGET = 2
    UPDATE = 3
    RESET = 4
    CELL = 5
    HIDDEN = 6


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
