"""The network-definition API: typed `add_*` methods of `Network`.

Each checks its arguments, turns numpy arrays into constant tensors and calls `Network.add_layer`.
All return the layer; `layer.output` is its first output. Axes may be negative (from the end).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from planformat.datatypes import DataType

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]
_FLOATS = {
    DataType.FLOAT32: np.float32,
    DataType.FLOAT16: np.float16,
    DataType.FLOAT64: np.float64,
}


class NetworkDoor:
    """What the `add_*` methods need of `Network`."""

    def add_layer(self, kind: str, params: Any, inputs: Sequence[Tensor], name: str = "") -> Layer:
        """Append a layer; `Network` overrides this."""
        raise NotImplementedError

    def add_constant(self, values: Array, name: str = "constant") -> Tensor:
        """A tensor with values; `Network` overrides this."""
        raise NotImplementedError

    def _operand(
        self,
        values: Array | Tensor,
        like: Tensor,
        name: str,
        shape: tuple[int, ...] | None = None,
    ) -> Tensor:
        """A tensor as it is; an array as a constant, floats in the type of `like`.

        Raises:
            NetworkError: the array does not have the elements that `shape` needs.
        """
        from builder_host.network.network import Tensor

        if isinstance(values, Tensor):
            return values
        array = np.asarray(values)
        if array.dtype.kind == "f" and like.dtype in _FLOATS:
            array = array.astype(_FLOATS[like.dtype])
        if shape is not None:
            if array.size != int(np.prod(shape)):
                raise NetworkError(
                    f"'{name}': array of shape {array.shape} has {array.size} elements, "
                    f"{shape} needs {int(np.prod(shape))}"
                )
            array = array.reshape(shape)
        return self.add_constant(array, name)


def per_dim(value: int | Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """One number per dimension; a single one counts for all."""
    values = (value,) * count if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != count:
        raise NetworkError(f"{what} has {len(values)} values {values} for {count} dimensions")
    return values


def positive_axis(axis: int, rank: int) -> int:
    """Axis counted from the front. Raises NetworkError when it is outside -rank..rank-1."""
    if not -rank <= axis < rank:
        raise NetworkError(f"axis {axis} is outside {-rank}..{rank - 1} of a rank-{rank} tensor")
    return axis % rank


def known_shape(shape: Sequence[int], source: tuple[int, ...]) -> tuple[int, ...]:
    """Resolve 0 (copy that dimension of the source) and one -1 (what is left).

    Raises:
        NetworkError: two -1, a 0 beyond the source's rank, or a rest that does not divide.
    """
    total = int(np.prod(source, dtype=np.int64))
    result = []
    for i, extent in enumerate(shape):
        if extent == 0 and i >= len(source):
            raise NetworkError(f"shape {tuple(shape)}: 0 at {i} has no dimension in {source}")
        result.append(source[i] if extent == 0 else int(extent))
    if result.count(-1) > 1:
        raise NetworkError(f"shape {tuple(shape)} holds more than one -1")
    if -1 in result:
        rest = int(np.prod([d for d in result if d != -1], dtype=np.int64))
        if rest == 0 or total % rest:
            raise NetworkError(f"{total} elements of {source} do not fill shape {tuple(shape)}")
        result[result.index(-1)] = total // rest
    return tuple(result)
