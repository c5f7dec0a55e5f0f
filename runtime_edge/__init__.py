"""The edge runtime: maps plans and enqueues inference. Needs neither NumPy nor the builder.

    engine = load("m.plan")
    context = engine.create_context(arena=my_memory)
    stream = engine.create_stream()
    context.enqueue({"data": input_address, "prob": output_address}, stream)
    stream.synchronize()

Names are imported when they are first used, so that `import runtime_edge` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime_edge.batching import BatchRunner
    from runtime_edge.canary import CanaryReport
    from runtime_edge.config import RuntimeConfig
    from runtime_edge.context import ExecutionContext, StepTime
    from runtime_edge.engine import Engine, load
    from runtime_edge.errors import (
        BindingError,
        CanaryError,
        ContextBusyError,
        DeviceError,
        LoadError,
        MemoryRegionError,
        RuntimeEdgeError,
        StrictModeError,
    )
    from runtime_edge.memory import Allocator, MemoryRegion
    from runtime_edge.probe import probe_device

__all__ = [
    "Allocator",
    "BatchRunner",
    "BindingError",
    "CanaryError",
    "CanaryReport",
    "ContextBusyError",
    "DeviceError",
    "Engine",
    "ExecutionContext",
    "LoadError",
    "MemoryRegion",
    "MemoryRegionError",
    "RuntimeConfig",
    "RuntimeEdgeError",
    "StepTime",
    "StrictModeError",
    "load",
    "probe_device",
]

_HOME = {
    "Allocator": "memory",
    "BatchRunner": "batching",
    "CanaryReport": "canary",
    "Engine": "engine",
    "ExecutionContext": "context",
    "MemoryRegion": "memory",
    "RuntimeConfig": "config",
    "StepTime": "context",
    "load": "engine",
    "probe_device": "probe",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'runtime_edge' has no attribute '{name}'")
    import importlib

    module = importlib.import_module(f"runtime_edge.{_HOME.get(name, 'errors')}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted([*globals(), *__all__])
