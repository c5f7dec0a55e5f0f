"""Memory layout of a tensor: format and strides, as kernels see it.

A layout tells how to reach element `index` from the tensor's first element; where that first
element lies (binding, arena, weights, offset) is decided later and reaches the kernel as a pointer.
Elided concatenations and slices show up here as strides larger than the tensor itself needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat


@dataclass(frozen=True, slots=True)
class Layout:
    """Format, logical shape, element type and strides in elements.

    strides: LINEAR and NHWC: one per logical dimension. Blocked NCHWxC: (n, channel block, h, w),
        where w's stride is at least x; the lane within a block has stride 1.
    """

    format: TensorFormat
    shape: tuple[int, ...]
    dtype: DataType
    strides: tuple[int, ...]

    @property
    def type(self) -> TensorType:
        """Logical shape and element type."""
        return TensorType(self.shape, self.dtype)

    @property
    def num_channel_blocks(self) -> int:
        """Channel blocks of a blocked layout."""
        return -(-self.shape[1] // self.format.channel_block)

    @property
    def stored_elems(self) -> int:
        """Elements from the first to the last one stored, padded lanes included."""
        if self.format.channel_block > 1:
            n, _, h, w = self.shape
            extents: tuple[int, ...] = (n, self.num_channel_blocks, h, w)
            lanes = self.format.channel_block
        else:
            extents, lanes = self.shape, 1
        if 0 in extents:
            return 0
        return sum((e - 1) * s for e, s in zip(extents, self.strides, strict=True)) + lanes

    @property
    def stored_bytes(self) -> int:
        """`stored_elems` in bytes."""
        return self.stored_elems * self.dtype.size_bytes

    @property
    def is_dense(self) -> bool:
        """Whether the strides are those of `dense_layout`."""
        return self.strides == dense_layout(self.type, self.format).strides

    def text(self) -> str:
        """Canonical text for keys, e.g. `1x64x56x56:f32:NCHW16C` or `...@s1,s2,s3,s4`."""
        base = f"{self.type}:{self.format.name}"
        return base if self.is_dense else base + "@" + ",".join(map(str, self.strides))


def dense_layout(tensor: TensorType, fmt: TensorFormat = TensorFormat.LINEAR) -> Layout:
    """The layout without gaps. Blocked formats need rank 4."""
    block = fmt.channel_block
    if block > 1:
        if tensor.rank != 4:
            raise ValueError(f"{fmt.name} needs a rank-4 tensor, got {tensor}")
        _, c, h, w = tensor.shape
        blocks = -(-c // block)
        strides: tuple[int, ...] = (blocks * h * w * block, h * w * block, w * block, block)
    elif fmt is TensorFormat.NHWC:
        _, c, h, w = tensor.shape
        strides = (h * w * c, 1, w * c, c)
    else:
        strides = tuple(math.prod(tensor.shape[i + 1 :]) for i in range(tensor.rank))
    return Layout(fmt, tensor.shape, tensor.dtype, strides)
