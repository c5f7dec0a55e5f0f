"""What the runtime uses of `pycuda.driver`, by ctypes, for tests where pycuda is not installed.

pycuda has no wheels, and building it takes minutes. Traps of the real one are kept: a context of
its own stack, objects that belong to the context that was current when they were made, and
destructors that only work where that context is current or from the thread that made it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import types
import warnings
from typing import Any

import numpy as np


class Error(Exception):
    """Any failure; the text is all that pycuda gives."""


class LogicError(Error):
    """Most codes."""


class MemoryError(Error):
    """Out of memory."""


_library = ctypes.CDLL("libcuda.so.1")
_local = threading.local()


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _library.cuGetErrorString(code, ctypes.byref(text))
        kind = MemoryError if code == 2 else LogicError
        raise kind(f"{name.removesuffix('_v2')} failed: {(text.value or b'?').decode()}")


def _made(name: str, *arguments: Any) -> int:
    handle = ctypes.c_void_p()
    _call(name, ctypes.byref(handle), *arguments)
    return handle.value or 0


def _stack() -> list[Context]:
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


class Context:
    """A context that can be pushed."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.thread = threading.get_ident()

    def push(self) -> None:
        """As pycuda: takes the present one off the driver's stack first."""
        if _stack():
            _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self.handle))
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        """Inverse of push."""
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        _stack().pop()
        if _stack():
            _call("cuCtxPushCurrent_v2", ctypes.c_void_p(_stack()[-1].handle))

    @staticmethod
    def get_current() -> Context | None:
        """Top of pycuda's stack."""
        return _stack()[-1] if _stack() else None


class _Owned:
    """Something that belongs to the context that was current."""

    def __init__(self, destroy: str, handle: int) -> None:
        self._context = _stack()[-1] if _stack() else None
        self._destroy = destroy
        self.handle = handle
        if self._context is None:
            raise LogicError("explicit_context_dependent failed: no currently active context?")

    def _release(self) -> None:
        handle, self.handle = self.handle, 0
        if not handle:
            return
        context = self._context
        if Context.get_current() is context:
            _call(self._destroy, ctypes.c_void_p(handle))
        elif threading.get_ident() != context.thread:
            kind = type(self).__name__
            warnings.warn(f"{kind} in out-of-thread context could not be cleaned up", stacklevel=2)
        else:
            context.push()
            try:
                _call(self._destroy, ctypes.c_void_p(handle))
            finally:
                context.pop()

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            self._release()


class Device:
    """A GPU by number."""

    def __init__(self, ordinal: int) -> None:
        self._device = ctypes.c_int()
        _call("cuDeviceGet", ctypes.byref(self._device), ordinal)

    def retain_primary_context(self) -> Context:
        """Its primary context, not pushed."""
        return Context(_made("cuDevicePrimaryCtxRetain", self._device))


class Stream(_Owned):
    """A stream; there is no way to destroy it but to let go of it."""

    def __init__(self, flags: int = 0) -> None:
        super().__init__("cuStreamDestroy_v2", _made("cuStreamCreate", flags))

    def synchronize(self) -> None:
        """Wait for all work."""
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))

    def wait_for_event(self, event: Event) -> None:
        """Later work waits for the event."""
        _call("cuStreamWaitEvent", ctypes.c_void_p(self.handle), ctypes.c_void_p(event._handle), 0)


class Event:
    """An event; its handle is hidden in pycuda."""

    def __init__(self, flags: int = 0) -> None:
        self._owned = _Owned("cuEventDestroy_v2", _made("cuEventCreate", flags))
        self._handle = self._owned.handle

    def record(self, stream: Stream) -> None:
        """Record it."""
        _call("cuEventRecord", ctypes.c_void_p(self._handle), ctypes.c_void_p(stream.handle))

    def synchronize(self) -> None:
        """Wait for it."""
        _call("cuEventSynchronize", ctypes.c_void_p(self._handle))


class DeviceAllocation(_Owned):
    """Device memory."""

    def __init__(self, nbytes: int) -> None:
        address = _made("cuMemAlloc_v2", ctypes.c_size_t(nbytes))
        super().__init__("cuMemFree_v2", address)

    def __int__(self) -> int:
        return self.handle

    def free(self) -> None:
        """Give it back now."""
        self._release()


class PagelockedHostAllocation(_Owned):
    """Page-locked memory behind an array."""

    def __init__(self, shape: tuple[int, ...], kind: np.dtype, flags: int) -> None:
        nbytes = int(np.prod(shape)) * kind.itemsize
        address = _made("cuMemHostAlloc", ctypes.c_size_t(nbytes), flags)
        super().__init__("cuMemFreeHost", address)
        data = (address, False)
        self.__array_interface__ = {
            "shape": shape,
            "typestr": kind.str,
            "data": data,
            "version": 3,
        }

    def free(self) -> None:
        """Give it back now."""
        self._release()

    def get_device_pointer(self) -> int:
        """Address for the device."""
        return _made("cuMemHostGetDevicePointer_v2", ctypes.c_void_p(self.handle), 0)


def mem_alloc(nbytes: int) -> DeviceAllocation:
    """Allocate device memory."""
    return DeviceAllocation(nbytes)


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    """An array in page-locked memory; `base` is the allocation."""
    assert order == "C"
    extents = shape if isinstance(shape, tuple) else (shape,)
    return np.asarray(PagelockedHostAllocation(extents, np.dtype(dtype), mem_flags))


def init(flags: int = 0) -> None:
    """Initialise the driver."""
    _call("cuInit", flags)


def as_modules() -> dict[str, types.ModuleType]:
    """`pycuda` and `pycuda.driver`, for sys.modules."""
    package = types.ModuleType("pycuda")
    package.driver = sys.modules[__name__]  # type: ignore[attr-defined]
    return {"pycuda": package, "pycuda.driver": sys.modules[__name__]}
