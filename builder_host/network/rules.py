"""Checks that the `infer` of layer kinds share; each raises NetworkError with both values."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.errors import NetworkError
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

EIGHT_BITS = frozenset({DataType.INT8, DataType.UINT8})


def require(condition: bool, text: str) -> None:
    """Raise NetworkError(text) unless the condition holds."""
    if not condition:
        raise NetworkError(text)


def require_num_inputs(inputs: Sequence[TensorType], low: int, high: int | None = None) -> None:
    """The number of inputs is low, or from low to high."""
    last = low if high is None else high
    if not low <= len(inputs) <= last:
        wanted = str(low) if low == last else f"{low} to {last}"
        raise NetworkError(f"takes {wanted} inputs, got {len(inputs)}")


def require_same_dtype(inputs: Sequence[TensorType]) -> None:
    """All inputs have one element type."""
    found = list(dict.fromkeys(t.dtype.text for t in inputs))
    if len(found) > 1:
        raise NetworkError(
            f"inputs must have one element type, got {', '.join(found)}; insert a cast"
        )


def product_type(inputs: Sequence[TensorType]) -> DataType:
    """Element type of a sum of products of inputs 0 and 1, before the epilogue.

    8-bit inputs take INT8 weights and no bias: their exact sum reaches the epilogue as FLOAT32.
    """
    x, w = inputs[0].dtype, inputs[1].dtype
    if x in EIGHT_BITS:
        require(
            w is DataType.INT8,
            f"input of {x.text} needs weights of {DataType.INT8.text}, got {w.text}; quantise both",
        )
        require(len(inputs) == 2, "a bias of a quantised layer belongs into its epilogue")
        return DataType.FLOAT32
    require_same_dtype(inputs)
    return x


def require_axis(axis: int, rank: int) -> None:
    """0 <= axis < rank."""
    if not 0 <= axis < rank:
        raise NetworkError(f"axis {axis} is outside 0..{rank - 1} of a rank-{rank} tensor")


def require_index(indices: TensorType) -> None:
    """An integer tensor that counts elements."""
    if indices.dtype.is_float or indices.dtype is DataType.BOOL:
        raise NetworkError(f"indices must be integers, got {indices}")


def require_per_dim(values: Sequence[object], rank: int, what: str) -> None:
    """One value per dimension."""
    if len(values) != rank:
        raise NetworkError(f"{what} has {len(values)} values {tuple(values)} for {rank} dimensions")


def require_broadcastable_to(
    shape: tuple[int, ...], target: tuple[int, ...], what: str = "shape"
) -> None:
    """Numpy broadcasting of `shape` to exactly `target`."""
    aligned = target[len(target) - len(shape) :] if len(shape) <= len(target) else None
    if aligned is None or any(s not in (1, t) for s, t in zip(shape, aligned, strict=True)):
        raise NetworkError(f"{what} {shape} does not broadcast to {target}")


def require_broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The numpy broadcast of all shapes."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        wide = {e for e in extents if e != 1}
        if len(wide) > 1:
            listed = ", ".join(str(s) for s in shapes)
            raise NetworkError(f"shapes {listed} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)
