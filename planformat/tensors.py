"""Sizes of tensors in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from planformat.datatypes import DataType, TensorFormat


def storage_elems(shape: Sequence[int], format: TensorFormat) -> int:
    """Elements that a tensor occupies in memory, lanes past the last channel included.

    Args:
        shape: logical dimensions; rank 4 (N, C, H, W) for every format but LINEAR.
        format: memory layout.

    Raises:
        ValueError: a format other than LINEAR with a rank other than 4.
    """
    if format is TensorFormat.LINEAR:
        return prod(shape)
    if len(shape) != 4:
        raise ValueError(f"format {format.name} holds rank-4 tensors, the shape is {list(shape)}")
    block = format.channel_block
    batch, channels, height, width = shape
    return batch * -(-channels // block) * block * height * width


def storage_bytes(shape: Sequence[int], dtype: DataType, format: TensorFormat) -> int:
    """Bytes that a tensor occupies in memory; arguments and errors as in `storage_elems`."""
    return storage_elems(shape, format) * dtype.size_bytes
