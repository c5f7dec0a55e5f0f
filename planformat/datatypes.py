"""Element types and memory formats that both sides of a plan agree on."""

from __future__ import annotations

import enum


class DataType(enum.Enum):
    """Element type of a tensor. `value` is the number stored in a plan (SPEC.md section 5)."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    FLOAT64 = 4
    INT8 = 5
    UINT8 = 6
    INT16 = 7
    UINT16 = 8
    INT32 = 9
    UINT32 = 10
    INT64 = 11
    UINT64 = 12
    BOOL = 13

    @property
    def text(self) -> str:
        """Short name used in kernel symbols, keys and reports, e.g. `f32`."""
        return _TEXT[self]

    @property
    def size_bytes(self) -> int:
        """Size of one element in bytes."""
        return _SIZE_BYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether the type is a floating-point type."""
        return self in _FLOATS


_TEXT = {
    DataType.FLOAT32: "f32",
    DataType.FLOAT16: "f16",
    DataType.BFLOAT16: "bf16",
    DataType.FLOAT64: "f64",
    DataType.INT8: "i8",
    DataType.UINT8: "u8",
    DataType.INT16: "i16",
    DataType.UINT16: "u16",
    DataType.INT32: "i32",
    DataType.UINT32: "u32",
    DataType.INT64: "i64",
    DataType.UINT64: "u64",
    DataType.BOOL: "bool",
}
_SIZE_BYTES = {
    DataType.FLOAT32: 4,
    DataType.FLOAT16: 2,
    DataType.BFLOAT16: 2,
    DataType.FLOAT64: 8,
    DataType.INT8: 1,
    DataType.UINT8: 1,
    DataType.INT16: 2,
    DataType.UINT16: 2,
    DataType.INT32: 4,
    DataType.UINT32: 4,
    DataType.INT64: 8,
    DataType.UINT64: 8,
    DataType.BOOL: 1,
}
_FLOATS = frozenset({DataType.FLOAT32, DataType.FLOAT16, DataType.BFLOAT16, DataType.FLOAT64})


class TensorFormat(enum.Enum):
    """Order of a tensor's elements in memory. `value` is the number stored in a plan.

    LINEAR is row-major over the logical dimensions. NCHWxC formats hold rank-4 tensors as
    `[N][ceil(C / x)][H][W][x]`; lanes past C hold unspecified values.
    """

    LINEAR = 1
    NCHW4C = 2
    NCHW8C = 3
    NCHW16C = 4
    NHWC = 5

    @property
    def channel_block(self) -> int:
        """Channels per innermost vector: 4, 8 or 16 for the blocked formats, else 1."""
        return _CHANNEL_BLOCK.get(self, 1)


_CHANNEL_BLOCK = {TensorFormat.NCHW4C: 4, TensorFormat.NCHW8C: 8, TensorFormat.NCHW16C: 16}
