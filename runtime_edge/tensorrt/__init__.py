"""The runtime half of TensorRT's Python API over plans: `from runtime_edge import tensorrt as trt`.

Programs that load an engine and run it change one import line. What building needs is in
`builder_host.tensorrt`, which holds all of this too. docs/migrating-from-tensorrt.md has the table.
"""

from __future__ import annotations

from runtime_edge.tensorrt.context import IExecutionContext
from runtime_edge.tensorrt.engine import EngineInspector, ICudaEngine, Runtime
from runtime_edge.tensorrt.interfaces import (
    IErrorRecorder,
    IGpuAllocator,
    ILogger,
    IProfiler,
    Logger,
    Profiler,
)
from runtime_edge.tensorrt.refused import MODULE
from runtime_edge.tensorrt.types import (
    DataType,
    Dims,
    Dims2,
    Dims3,
    Dims4,
    DimsHW,
    ExecutionContextAllocationStrategy,
    LayerInformationFormat,
    Permutation,
    PythonBool,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
    bfloat16,
    bool,
    float16,
    float32,
    int8,
    int32,
    int64,
    nptype,
    uint8,
    volume,
)

__version__ = "8.6.1"  # the API that these names follow; the plans are edgeplan's

__all__ = [
    "DataType",
    "Dims",
    "Dims2",
    "Dims3",
    "Dims4",
    "DimsHW",
    "EngineInspector",
    "ExecutionContextAllocationStrategy",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "IGpuAllocator",
    "ILogger",
    "IProfiler",
    "LayerInformationFormat",
    "Logger",
    "Permutation",
    "Profiler",
    "Runtime",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "bfloat16",
    "bool",
    "float16",
    "float32",
    "init_libnvinfer_plugins",
    "int8",
    "int32",
    "int64",
    "nptype",
    "uint8",
    "volume",
]


def init_libnvinfer_plugins(logger: object, namespace: str = "") -> PythonBool:
    """Nothing to do: plugins are compiled into the plan."""
    del logger, namespace
    return True


def __getattr__(name: str) -> object:
    """Raise AttributeError, with advice for names of the API that are not here."""
    advice = MODULE.get(name)
    text = f"module '{__name__}' has no attribute '{name}'"
    raise AttributeError(text if advice is None else f"{text}: {advice}")
