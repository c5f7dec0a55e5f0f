"""The daemon: serves plans over the Open Inference Protocol (KServe V2).

Needs the extra `serve` (httptools); neither NumPy nor the builder. `edgeplan serve` is the way in;
`Daemon` and `ServeConfig` are for tests and for programs that embed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime_edge.serve.config import PlanConfig, ServeConfig, load_config
    from runtime_edge.serve.daemon import Daemon

__all__ = ["Daemon", "PlanConfig", "ServeConfig", "load_config"]

_HOME = {"Daemon": "daemon", "PlanConfig": "config", "ServeConfig": "config"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'runtime_edge.serve' has no attribute '{name}'")
    import importlib

    module = importlib.import_module(f"runtime_edge.serve.{_HOME.get(name, 'config')}")
    return getattr(module, name)
