"""TensorRT's Python API over edgeplan: `from builder_host import tensorrt as trt`.

Programs written for TensorRT 5 to 8 build, load and run after changing that one import line. The
runtime half alone is `runtime_edge.tensorrt`. docs/migrating-from-tensorrt.md has the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import runtime_edge.tensorrt
from builder_host.plugins.plugin import Plugin
from builder_host.tensorrt.build_enums import *  # noqa: F403 - their __all__ is the list
from builder_host.tensorrt.builder import Builder
from builder_host.tensorrt.calibrators import (
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
)
from builder_host.tensorrt.config import (
    IBuilderConfig,
    IOptimizationProfile,
    IProgressMonitor,
    ITimingCache,
)
from builder_host.tensorrt.control_flow import IIfConditional, ILoop
from builder_host.tensorrt.enums import *  # noqa: F403 - their __all__ is the list
from builder_host.tensorrt.layers import *  # noqa: F403 - layers are named in annotations
from builder_host.tensorrt.network import INetworkDefinition, ITensor
from builder_host.tensorrt.parsers import (
    PLUGINS,
    CaffeParser,
    OnnxParser,
    OnnxParserFlag,
    ParserError,
    UffInputOrder,
    UffParser,
)
from builder_host.tensorrt.refitter import OnnxParserRefitter, Refitter
from builder_host.tensorrt.refused import MODULE
from runtime_edge.tensorrt import *  # noqa: F403 - the runtime half
from runtime_edge.tensorrt import __version__ as __version__
from runtime_edge.tensorrt.types import DataType, nptype

__all__ = [
    "PLUGINS",
    "Builder",
    "CaffeParser",
    "IBuilderConfig",
    "IIfConditional",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "ILoop",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "OnnxParserFlag",
    "OnnxParserRefitter",
    "ParserError",
    "Plugin",
    "Refitter",
    "UffInputOrder",
    "UffParser",
    "Weights",
]


class Weights:
    """Weights of a layer: an array, or nothing; a type alone stands for empty weights of it."""

    def __init__(self, array: Any = None) -> None:
        """Hold an array; None is empty."""
        if isinstance(array, DataType):
            array = np.zeros(0, nptype(array))
        self._array = np.zeros(0, np.float32) if array is None else np.asarray(array)

    def numpy(self) -> Any:
        """The array."""
        return self._array

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(self._array.nbytes)


def __getattr__(name: str) -> object:
    """Raise AttributeError, with advice for names of the API that are not here."""
    advice = MODULE.get(name)
    if advice is None:
        return getattr(runtime_edge.tensorrt, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}': {advice}")
