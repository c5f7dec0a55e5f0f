"""What an op module sees of one UFF node, and how it adds to the network.

A value remembers which dimension of its tensor each axis of the file's tensor is: convolutions
make channels-first tensors of channels-last files, and what follows works on them as they are, so
that no transposes are needed in between. Where an operation's meaning depends on the file's axis
order (reshape, flatten), `plain` puts it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.uff.orders import Order, expanded, order_for_rank
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import UffNode
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.transpose import TransposeParams
from builder_host.network.network import Layer, Network, Tensor

Array = npt.NDArray[Any]

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor, and for each axis of the file's tensor the dimension of `tensor` that it is."""

    tensor: Tensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file's axis order."""
        return tuple(self.tensor.shape[dim] for dim in self.axes)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.axes)


def plain_value(tensor: Tensor) -> Value:
    """A tensor whose dimensions are the file's axes."""
    return Value(tensor, tuple(range(len(tensor.shape))))


@dataclass(slots=True)
class NodeView:
    """One node with its inputs ready.

    Attributes:
        node: as read.
        values: its inputs.
        network: to add to.
        read: names of the fields that were looked at; the rest is reported.
        turned: constants in another axis order, by tensor and order; shared by the nodes of a
            network, so that a kernel which many nodes read is stored once.
    """

    node: UffNode
    values: list[Value]
    network: Network
    read: set[str] = field(default_factory=set)
    turned: dict[tuple[Tensor, Order], Tensor] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """`UFF node 'conv1' (Conv)`."""
        return self.node.title

    # --- fields --------------------------------------------------------------------------

    def _field(self, name: str, types: tuple[type, ...], what: str, default: Any) -> Any:
        self.read.add(name)
        found = self.node.fields.get(name)
        if found is None:
            if default is _MISSING:
                raise NodeProblem(f"field '{name}' is missing; convert the model again")
            return default
        if not isinstance(found, types) or (isinstance(found, bool) and bool not in types):
            raise NodeProblem(f"field '{name}' is {found!r}, must be {what}")
        return found

    def text(self, name: str, default: Any = _MISSING) -> str:
        """A text field, in lower case."""
        return str(self._field(name, (str,), "text", default)).lower()

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A whole number."""
        return int(self._field(name, (int,), "a whole number", default))

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A number."""
        return float(self._field(name, (int, float), "a number", default))

    def flag(self, name: str, default: bool = False) -> bool:
        """Truth, also as a number."""
        return bool(self._field(name, (bool, int), "true or false", default))

    def has(self, name: str) -> bool:
        """Whether a field is stated."""
        return self.node.fields.get(name) is not None

    def integers(self, name: str, count: int | None, default: Any = _MISSING) -> tuple[int, ...]:
        """A list of whole numbers; a single number counts as a list of one.

        Args:
            name: of the field.
            count: how many there must be; a list of one is repeated. None: any number.
            default: where the field is missing.
        """
        found = self._field(name, (tuple, int), "whole numbers", default)
        values = (found,) if isinstance(found, int) else tuple(found)
        if not all(isinstance(v, int) for v in values):
            raise NodeProblem(f"field '{name}' is {values!r}, must be whole numbers")
        if count is not None and len(values) == 1:
            values *= count
        if count is not None and len(values) != count:
            raise NodeProblem(
                f"field '{name}' has {len(values)} values {values}, must have {count}"
            )
        return values

    def order(self, index: int, default: Sequence[int]) -> Order:
        """Canonical axis of each axis of input `index`; `default` where the file is silent."""
        rank = self.values[index].rank
        stated = self._field("inputs_orders", (tuple,), "a list of orders", ())
        if len(stated) <= index:
            return expanded(default, rank)
        return order_for_rank(stated[index], rank)

    # --- inputs --------------------------------------------------------------------------

    def require_inputs(self, low: int, high: int | None = None) -> None:
        """Check the number of inputs. Raises NodeProblem."""
        last = low if high is None else high
        if not low <= len(self.values) <= last:
            wanted = str(low) if low == last else f"{low} to {last}"
            raise NodeProblem(f"has {len(self.values)} inputs, takes {wanted}")

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """`axis` counted from the front. Raises NodeProblem when out of range."""
        if not -rank <= axis < rank:
            raise NodeProblem(f"{what} is {axis}, the input has {rank} dimensions")
        return axis % rank

    def array(self, index: int, what: str) -> Array:
        """Values of a constant input in the file's axis order. Raises NodeProblem."""
        value = self.values[index]
        if value.tensor.values is None:
            raise NodeProblem(
                f"{what} (input {index}, '{value.tensor.name}') must be known at build time, but "
                "it depends on the network's inputs"
            )
        return value.tensor.values.transpose(value.axes)

    def integer_list(self, index: int, what: str) -> tuple[int, ...]:
        """Values of a constant input as whole numbers. Raises NodeProblem."""
        array = self.array(index, what)
        if array.dtype.kind not in "iu" and not np.array_equal(array, np.round(array)):
            raise NodeProblem(f"{what} (input {index}) holds {array.dtype}, must be whole numbers")
        return tuple(int(v) for v in array.reshape(-1))

    def plain(self, index: int) -> Tensor:
        """Input `index` with its dimensions in the file's axis order."""
        return self.arranged(self.values[index], tuple(range(self.values[index].rank)))

    def ordered(self, index: int, order: Order) -> Tensor:
        """Input `index` with its dimensions in canonical order, given the order of its axes."""
        return self.arranged(self.values[index], order)

    def arranged(self, value: Value, axes: Order) -> Tensor:
        """The tensor of a value with file axis `i` in dimension `axes[i]`."""
        permutation = tuple(value.axes[axes.index(dim)] for dim in range(value.rank))
        tensor = value.tensor
        if permutation == tuple(range(value.rank)):
            return tensor
        if tensor.values is not None:
            key = (tensor, permutation)
            if key not in self.turned:
                turned = tensor.values.transpose(permutation)
                self.turned[key] = self.constant(turned, tensor.name)
            return self.turned[key]
        wide = [dim for dim in permutation if tensor.shape[dim] != 1]
        if wide == sorted(wide):  # only dimensions of extent one move
            shape = tuple(tensor.shape[dim] for dim in permutation)
            return self.add("reshape", ReshapeParams(shape), [tensor])
        return self.add("transpose", TransposeParams(permutation), [tensor])

    # --- adding --------------------------------------------------------------------------

    def constant(self, values: Array, role: str) -> Tensor:
        """A constant tensor named after the node."""
        return self.network.add_constant(np.ascontiguousarray(values), f"{self.node.id}:{role}")

    def add(self, kind: str, params: Any, inputs: Sequence[Tensor]) -> Tensor:
        """Append a layer; its first output."""
        return self.add_layer(kind, params, inputs).outputs[0]

    def add_layer(self, kind: str, params: Any, inputs: Sequence[Tensor]) -> Layer:
        """Append a layer. TensorFlow names hold no colon, so the scratch name is free."""
        return self.network.add_layer(
            kind, params, inputs, f"{self.node.id}:{kind}", origin=self.origin
        )

    def reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor in another shape; as it is when the shape is the same."""
        if tuple(shape) == tensor.shape:
            return tensor
        return self.add("reshape", ReshapeParams(tuple(shape)), [tensor])
