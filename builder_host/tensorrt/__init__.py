"""TensorRT's Python API over edgeplan: `from builder_host import tensorrt as trt`.

Programs written for TensorRT 5 to 8 build, load and run after changing that one import line. The
runtime half alone is `runtime_edge.tensorrt`. docs/migrating-from-tensorrt.md has the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from builder_host.plugins.plugin import Plugin
from builder_host.tensorrt.builder import (
    Builder,
    IBuilderConfig,
    IOptimizationProfile,
    ITimingCache,
)
from builder_host.tensorrt.calibrators import (
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
)
from builder_host.tensorrt.enums import *  # noqa: F403 - their __all__ is the list
from builder_host.tensorrt.network import INetworkDefinition, ITensor
from builder_host.tensorrt.parsers import (
    CaffeParser,
    OnnxParser,
    ParserError,
    UffInputOrder,
    UffParser,
)
from runtime_edge.tensorrt import *  # noqa: F403 - the runtime half
from runtime_edge.tensorrt import __version__ as __version__

__all__ = [
    "Builder",
    "CaffeParser",
    "IBuilderConfig",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Plugin",
    "UffInputOrder",
    "UffParser",
    "Weights",
]


class Weights:
    """Weights of a layer: an array, or nothing."""

    def __init__(self, array: Any = None) -> None:
        """Hold an array; None is empty."""
        self._array = np.zeros(0, np.float32) if array is None else np.asarray(array)

    def numpy(self) -> Any:
        """The array."""
        return self._array

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._array.size)
