"""ILoop and IIfConditional: what `add_loop` and `add_if_conditional` give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from builder_host.errors import NetworkError
from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.enums import LoopOutput, TripLimit

if TYPE_CHECKING:
    from builder_host.tensorrt.layers.base import ILayer
    from builder_host.tensorrt.network import INetworkDefinition, ITensor


Boundary = TypeVar("Boundary", bound=kinds.ILoopBoundaryLayer)


class ILoop:
    """A loop; its body is what depends on its recurrences and iterators.

    Plans have a fixed list of steps: a loop is unrolled, so what ends it must be known while
    building.

    Attributes:
        name: for messages.
    """

    def __init__(self, network: INetworkDefinition, name: str) -> None:
        """See `INetworkDefinition.add_loop`."""
        self._network = network
        self.name = name
        self.boundaries: list[kinds.ILoopBoundaryLayer] = []

    def add_recurrence(self, initial_value: ITensor) -> kinds.IRecurrenceLayer:
        """A value that changes: its output is the present one; give the next by set_input(1, ..).

        Args:
            initial_value: in the first iteration.
        """
        return self._keep(
            self._network.add_kind(kinds.IRecurrenceLayer, [initial_value], loop=self)
        )

    def add_iterator(
        self, tensor: ITensor, axis: int = 0, reverse: bool = False
    ) -> kinds.IIteratorLayer:
        """The slices of a tensor, one per iteration.

        Args:
            tensor: what is sliced.
            axis: which of its dimensions the iterations walk along.
            reverse: from the last to the first.
        """
        return self._keep(
            self._network.add_kind(
                kinds.IIteratorLayer, [tensor], loop=self, axis=axis, reverse=reverse
            )
        )

    def add_trip_limit(self, tensor: ITensor, kind: TripLimit) -> kinds.ITripLimitLayer:
        """What ends the loop.

        Args:
            tensor: the number of iterations, or a condition computed in the body.
            kind: which of both; a loop may have one of each.
        """
        return self._keep(
            self._network.add_kind(kinds.ITripLimitLayer, [tensor], 0, loop=self, kind=kind)
        )

    def add_loop_output(
        self, tensor: ITensor, kind: LoopOutput, axis: int = 0
    ) -> kinds.ILoopOutputLayer:
        """A result of the loop.

        Args:
            tensor: output of a recurrence for LAST_VALUE, else any tensor of the body.
            kind: the last value, or all values in order or backwards.
            axis: the new dimension of all values.
        """
        return self._keep(
            self._network.add_kind(
                kinds.ILoopOutputLayer, [tensor], loop=self, kind=kind, axis=axis
            )
        )

    def _keep(self, layer: Boundary) -> Boundary:
        self.boundaries.append(layer)
        return layer


class IIfConditional:
    """Two branches and a condition.

    Attributes:
        name: for messages.
    """

    def __init__(self, network: INetworkDefinition, name: str) -> None:
        """See `INetworkDefinition.add_if_conditional`."""
        self._network = network
        self.name = name
        self.condition: ITensor | None = None

    def set_condition(self, condition: ITensor) -> kinds.IConditionLayer:
        """What chooses the branch; before any output.

        Args:
            condition: one BOOL.
        """
        self.condition = condition
        return self._network.add_kind(kinds.IConditionLayer, [condition], 0, conditional=self)

    def add_input(self, input: ITensor) -> kinds.IIfConditionalInputLayer:
        """A tensor for the branches.

        Args:
            input: any tensor.
        """
        return self._network.add_kind(kinds.IIfConditionalInputLayer, [input], conditional=self)

    def add_output(
        self, true_subgraph_output: ITensor, false_subgraph_output: ITensor
    ) -> kinds.IIfConditionalOutputLayer:
        """A result: that of the branch which the condition chooses.

        Args:
            true_subgraph_output: where the condition holds.
            false_subgraph_output: where it does not.

        Raises:
            NetworkError: the condition has not been set.
        """
        if self.condition is None:
            raise NetworkError(f"'{self.name}': call set_condition before add_output")
        return self._network.add_kind(
            kinds.IIfConditionalOutputLayer,
            [true_subgraph_output, false_subgraph_output, self.condition],
            conditional=self,
        )


def body_of(loop: ILoop, layers: Sequence[ILayer]) -> set[ILayer]:
    """A loop with all that depends on its recurrences and iterators, up to its outputs.

    Args:
        loop: the loop.
        layers: the network's, in any order.
    """
    readers: dict[ITensor, list[ILayer]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            if tensor is not None:
                readers.setdefault(tensor, []).append(layer)
    inside: set[ILayer] = set(loop.boundaries)
    waiting: list[ILayer] = [
        layer for layer in loop.boundaries if not isinstance(layer, kinds.ILoopOutputLayer)
    ]
    while waiting:
        for tensor in waiting.pop().outputs:
            for reader in readers.get(tensor, ()):
                if reader not in inside:
                    inside.add(reader)
                    waiting.append(reader)
    return inside
