"""The few calls of pycuda that sample programs make, on this machine's own memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np


class DeviceAllocation:
    """A piece of memory; `int(allocation)` is its address."""

    def __init__(self, nbytes: int) -> None:
        self._raw = np.zeros(nbytes + 64, np.uint8)
        self._address = self._raw.ctypes.data + -self._raw.ctypes.data % 64

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        """Nothing to do."""


class Stream:
    """A stream that is always done."""

    handle = 0

    def synchronize(self) -> None:
        """Nothing to wait for."""


def memcpy_htod(to: Any, array: Any, stream: Any = None) -> None:
    """Copy an array to an address."""
    del stream
    values = np.ascontiguousarray(array)
    ctypes.memmove(int(to), values.ctypes.data, values.nbytes)


def memcpy_dtoh(array: Any, source: Any, stream: Any = None) -> None:
    """Copy from an address to an array."""
    del stream
    ctypes.memmove(array.ctypes.data, int(source), array.nbytes)


def pagelocked_empty(shape: Any, dtype: Any) -> Any:
    """An array."""
    return np.empty(shape, dtype)


@contextmanager
def installed() -> Iterator[ModuleType]:
    """`pycuda.driver` and `pycuda.autoinit` are importable inside."""
    package, driver, autoinit = (
        ModuleType(name) for name in ("pycuda", "pycuda.driver", "pycuda.autoinit")
    )
    driver.mem_alloc = DeviceAllocation  # type: ignore[attr-defined]
    driver.Stream = Stream  # type: ignore[attr-defined]
    driver.memcpy_htod = driver.memcpy_htod_async = memcpy_htod  # type: ignore[attr-defined]
    driver.memcpy_dtoh = driver.memcpy_dtoh_async = memcpy_dtoh  # type: ignore[attr-defined]
    driver.pagelocked_empty = pagelocked_empty  # type: ignore[attr-defined]
    package.driver, package.autoinit = driver, autoinit  # type: ignore[attr-defined]
    modules = {"pycuda": package, "pycuda.driver": driver, "pycuda.autoinit": autoinit}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield driver
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
