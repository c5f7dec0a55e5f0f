"""The host side: import a network, optimise and tune it for one exact target, write a plan."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder_host.builder import BuiltPlan, build
    from builder_host.config import BuilderConfig
    from builder_host.errors import BuilderError
    from builder_host.importers.caffe.model import import_caffe
    from builder_host.importers.caffe.weights import read_binaryproto
    from builder_host.importers.onnx.model import import_onnx
    from builder_host.importers.tensorflow.model import import_tensorflow
    from builder_host.importers.uff.model import import_uff
    from builder_host.network.network import Network

__version__ = "0.1.0"

__all__ = [
    "BuilderConfig",
    "BuilderError",
    "BuiltPlan",
    "Network",
    "build",
    "import_caffe",
    "import_onnx",
    "import_tensorflow",
    "import_uff",
    "read_binaryproto",
]

_HOMES = {
    "BuilderConfig": "builder_host.config",
    "BuiltPlan": "builder_host.builder",
    "build": "builder_host.builder",
    "BuilderError": "builder_host.errors",
    "import_caffe": "builder_host.importers.caffe.model",
    "read_binaryproto": "builder_host.importers.caffe.weights",
    "import_onnx": "builder_host.importers.onnx.model",
    "import_tensorflow": "builder_host.importers.tensorflow.model",
    "import_uff": "builder_host.importers.uff.model",
    "Network": "builder_host.network.network",
}


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that importing the package stays cheap."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'builder_host' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)
