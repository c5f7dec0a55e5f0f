"""Errors of the edge runtime. A plan that is bad in itself raises `planformat.errors.PlanError`.

RuntimeEdgeError
├── LoadError            code objects of a sound plan cannot be used here
├── CanaryError          the canary inference gave other numbers than at build time
├── BindingError         a binding is missing, unknown, too small, of another type or shape
├── MemoryRegionError    memory that the caller supplied is too small or misaligned
├── ContextBusyError     a context is used by two users at once
├── CaptureError         a captured run cannot be written, or is not one
├── StrictModeError      the runtime would have to allocate after load
└── DeviceError          the device or the operating system refused something
    └── CudaError        a call of the CUDA driver failed (device/cuda_driver.py)
"""

from __future__ import annotations


class RuntimeEdgeError(Exception):
    """Any reason why the runtime cannot load or run a plan."""


class LoadError(RuntimeEdgeError):
    """The plan's code objects cannot be used on this device."""


class CanaryError(RuntimeEdgeError):
    """The canary inference gave other numbers than at build time."""


class BindingError(RuntimeEdgeError):
    """A binding is missing, unknown, too small, or of another type or shape."""


class MemoryRegionError(RuntimeEdgeError):
    """Memory that the caller supplied is too small or misaligned."""


class ContextBusyError(RuntimeEdgeError):
    """A context is used by two users at once, or something is used after it was closed."""


class CaptureError(RuntimeEdgeError):
    """A captured run cannot be written, or a folder does not hold one."""


class StrictModeError(RuntimeEdgeError):
    """Strict mode: the runtime would have to allocate memory after load."""


class DeviceError(RuntimeEdgeError):
    """The device or the operating system refused something."""
