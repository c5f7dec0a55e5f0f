"""Shape and element type of a tensor, as layers see them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planformat.datatypes import DataType

MAX_RANK = 8


@dataclass(frozen=True, slots=True)
class TensorType:
    """Static shape (batch included) and element type."""

    shape: tuple[int, ...]
    dtype: DataType = DataType.FLOAT32

    @property
    def num_elems(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __str__(self) -> str:
        """E.g. `1x3x224x224:f32`; a scalar is `scalar:f32`."""
        return ("x".join(map(str, self.shape)) or "scalar") + ":" + self.dtype.text
