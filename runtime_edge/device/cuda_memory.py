"""What a caller may pass as device memory, and where it lies."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any

from planformat.datatypes import DataType
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.cuda_context import GpuContext

_TYPES = {
    "f2": DataType.FLOAT16,
    "f4": DataType.FLOAT32,
    "f8": DataType.FLOAT64,
    "i1": DataType.INT8,
    "i2": DataType.INT16,
    "i4": DataType.INT32,
    "i8": DataType.INT64,
    "u1": DataType.UINT8,
    "u2": DataType.UINT16,
    "u4": DataType.UINT32,
    "u8": DataType.UINT64,
    "b1": DataType.BOOL,
}


class DeviceBuffer:
    """A C-contiguous array in device memory, as `__cuda_array_interface__` describes it.

    The owner is kept alive; that its memory is not resized meanwhile is the caller's business. An
    entry `stream` is not waited for: enqueue on that stream, or make yours wait.

    Attributes:
        address, nbytes, shape, dtype, is_bytes, owner: as in `HeldBuffer`.
    """

    __slots__ = ("address", "dtype", "is_bytes", "nbytes", "owner", "shape")

    def __init__(self, owner: Any, *, is_writable: bool) -> None:
        """Read the owner's interface.

        Raises:
            BufferError: read-only but to be written, or not C-contiguous.
            ValueError: an element type that has no size.
        """
        interface = owner.__cuda_array_interface__
        address, is_read_only = interface["data"]
        if is_read_only and is_writable:
            raise BufferError("it is read-only")
        self.owner = owner
        self.address: int = address
        self.shape: tuple[int, ...] = tuple(interface["shape"])
        found = re.fullmatch(r"[<>|=]?([a-zA-Z])(\d+)", interface["typestr"])
        if found is None:
            raise ValueError(f"its elements are {interface['typestr']!r}")
        elem_bytes = int(found[2])
        self.dtype: DataType | None = _TYPES.get(found[1] + found[2])
        self.is_bytes: bool = elem_bytes == 1 and found[1] in "uiV" and len(self.shape) == 1
        stride = elem_bytes
        strides = interface.get("strides")
        for axis in range(len(self.shape) - 1, -1, -1):
            if strides is not None and self.shape[axis] > 1 and strides[axis] != stride:
                raise BufferError(f"its strides are {tuple(strides)} bytes, not C-contiguous")
            stride *= self.shape[axis]
        self.nbytes: int = stride


def hold(context: GpuContext, value: Any, *, is_writable: bool) -> Any:
    """Device memory of a caller's object.

    Args:
        context: of the GPU.
        value: anything with `__cuda_array_interface__`, a pycuda allocation, or a page-locked host
            buffer that the device can reach (zero-copy).
        is_writable: the device will write to it.

    Returns:
        A `DeviceBuffer`, a `HeldBuffer` with the device's address, or for a bare allocation the
        pair (address, nbytes).

    Raises:
        TypeError, BufferError, ValueError: as `HeldBuffer` does.
    """
    if hasattr(value, "__cuda_array_interface__"):
        return DeviceBuffer(value, is_writable=is_writable)
    pycuda = sys.modules.get("pycuda.driver")
    pointer: Any = value
    if pycuda is not None and isinstance(value, _allocation_types(pycuda)):
        address = int(pointer)
        base, size = ctypes.c_void_p(), ctypes.c_size_t()
        with context:
            context.driver.address_range(ctypes.byref(base), ctypes.byref(size), address)
        return address, size.value - (address - (base.value or 0))
    held = HeldBuffer(value, is_writable=is_writable)
    with context:
        address_there = context.driver.device_pointer(held.address) if held.nbytes else 0
    if address_there is None:
        raise BufferError(
            "it lies in pageable host memory, which the GPU cannot reach: pass device memory, "
            "page-locked memory (pycuda.driver.pagelocked_empty), or use execute()"
        )
    held.address = address_there
    return held


def _allocation_types(pycuda: Any) -> tuple[Any, ...]:
    names = ("DeviceAllocation", "PooledDeviceAllocation")
    return tuple(getattr(pycuda, name) for name in names if hasattr(pycuda, name))
