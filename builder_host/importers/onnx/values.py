"""What a name of an ONNX graph can stand for: a tensor, a sequence of tensors, an optional.

Sequences and optionals exist while importing only: their length and presence are known then, and
what is left of them in the network are tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder_host.network.network import Tensor
from planformat.datatypes import DataType


@dataclass(frozen=True, slots=True, eq=False)
class TensorSequence:
    """Tensors in order; `dtype` is that of the items, or None while nobody knows."""

    items: tuple[Tensor, ...]
    dtype: DataType | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OptionalValue:
    """A tensor or sequence that may be absent."""

    content: Tensor | TensorSequence | None


Value = Tensor | TensorSequence | OptionalValue


def value_text(value: Value) -> str:
    """How messages name a value."""
    match value:
        case Tensor():
            return str(value.type)
        case TensorSequence(items=items):
            return f"a sequence of {len(items)} tensors"
        case OptionalValue(content=None):
            return "an empty optional"
        case OptionalValue(content=content):
            assert content is not None
            return f"an optional holding {value_text(content)}"
