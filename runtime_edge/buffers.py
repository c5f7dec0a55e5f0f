"""Addresses of Python objects that export the buffer protocol, without NumPy and without copies."""

from __future__ import annotations

import ctypes
from typing import Any

from planformat.datatypes import DataType

_WRITABLE = 0x01
_C_CONTIGUOUS = 0x38
_FORMAT_AND_C_CONTIGUOUS = 0x04 | _C_CONTIGUOUS


class _PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's buffer protocol; stable since Python 3.3."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None

_TYPES = {
    **{("f", t.size_bytes): t for t in (DataType.FLOAT16, DataType.FLOAT32, DataType.FLOAT64)},
    **{
        ("i", t.size_bytes): t
        for t in (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)
    },
    **{
        ("u", t.size_bytes): t
        for t in (DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64)
    },
    ("?", 1): DataType.BOOL,
}
_KINDS = {**dict.fromkeys("efd", "f"), **dict.fromkeys("bhilqn", "i"), "?": "?"}
_KINDS.update(dict.fromkeys("BHILQN", "u"))


def buffer_address(owner: Any, *, is_writable: bool) -> int:
    """Address of an object's C-contiguous buffer; the caller keeps the object as it is.

    A fifth of the time that HeldBuffer takes, for objects whose type and size are known already.

    Raises:
        TypeError: no buffer; BufferError, ValueError: not contiguous, or read-only.
    """
    raw = _PyBuffer()
    _get_buffer(owner, raw, _C_CONTIGUOUS | (_WRITABLE if is_writable else 0))
    address: int = raw.buf or 0
    _release_buffer(raw)
    return address


class HeldBuffer:
    """A C-contiguous buffer that cannot be resized or freed while this object lives.

    Attributes:
        address: of the first byte; nbytes: size in bytes.
        shape: extents in elements.
        dtype: element type, None for one that no plan knows.
        is_bytes: a plain one-dimensional byte buffer, which fits any element type.
        owner: the exporting object.
    """

    __slots__ = ("_raw", "address", "dtype", "is_bytes", "nbytes", "owner", "shape")

    def __init__(self, owner: Any, *, is_writable: bool) -> None:
        """Export the buffer of `owner`.

        Raises:
            TypeError: no buffer; BufferError, ValueError: not contiguous, or read-only.
        """
        raw = _PyBuffer()
        flags = _FORMAT_AND_C_CONTIGUOUS | (_WRITABLE if is_writable else 0)
        _get_buffer(owner, raw, flags)
        self._raw = raw
        self.owner = owner
        self.address: int = raw.buf or 0
        self.nbytes: int = raw.len
        self.shape: tuple[int, ...] = tuple(raw.shape[: raw.ndim]) if raw.ndim else ()
        text = (raw.format or b"B").decode("ascii", "replace")
        code = text[1:] if text[0] in "@=<" else text
        self.dtype: DataType | None = _TYPES.get((_KINDS.get(code, ""), raw.itemsize))
        self.is_bytes: bool = code in ("B", "b", "c") and raw.ndim == 1

    def __del__(self, _release: Any = _release_buffer) -> None:
        """Release the export."""
        raw = getattr(self, "_raw", None)
        if raw is not None:
            _release(raw)
