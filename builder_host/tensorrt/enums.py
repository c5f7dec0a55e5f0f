"""Enumerations of TensorRT's network API, and what they mean here."""

from __future__ import annotations

import enum

from builder_host.network.padding_mode import PaddingMode

__all__ = [
    "ActivationType",
    "BoundingBoxFormat",
    "CumulativeOperation",
    "ElementWiseOperation",
    "FillOperation",
    "GatherMode",
    "InterpolationMode",
    "LoopOutput",
    "MatrixOperation",
    "PaddingMode",
    "PoolingType",
    "RNNDirection",
    "RNNGateType",
    "RNNInputMode",
    "RNNOperation",
    "ReduceOperation",
    "ResizeCoordinateTransformation",
    "ResizeMode",
    "ResizeRoundMode",
    "ResizeSelector",
    "SampleMode",
    "ScaleMode",
    "ScatterMode",
    "SliceMode",
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
