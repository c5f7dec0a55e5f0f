"""Loops and conditionals: plans have fixed steps, so loops are unrolled and branches selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import LoopOutput, TripLimit
from builder_host.tensorrt.layers.base import ILayer, required

if TYPE_CHECKING:
    from builder_host.tensorrt.control_flow import IIfConditional, ILoop


@dataclass(eq=False, kw_only=True)
class ILoopBoundaryLayer(ILayer):
    """A layer where a loop begins or ends; the loop itself emits it."""

    loop: ILoop


@dataclass(eq=False, kw_only=True)
class ITripLimitLayer(ILoopBoundaryLayer):
    """How often a loop runs: a count, or while a condition holds; known while building."""

    kind: TripLimit


@dataclass(eq=False, kw_only=True)
class IRecurrenceLayer(ILoopBoundaryLayer):
    """A value that changes from iteration to iteration: input 0 first, then input 1."""


@dataclass(eq=False, kw_only=True)
class IIteratorLayer(ILoopBoundaryLayer):
    """The slices of a tensor along an axis, one per iteration."""

    axis: int = 0
    reverse: bool = False


@dataclass(eq=False, kw_only=True)
class ILoopOutputLayer(ILoopBoundaryLayer):
    """The last value of a recurrence, or a tensor of all iterations along a new axis."""

    kind: LoopOutput
    axis: int = 0


@dataclass(eq=False, kw_only=True)
class IConditionLayer(ILayer):
    """The condition of a conditional."""

    conditional: IIfConditional

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Nothing to add: the outputs look at the tensor."""
        del net, shift
        required(xs, 0, self)
        return []


@dataclass(eq=False, kw_only=True)
class IIfConditionalInputLayer(ILayer):
    """A tensor on its way into the branches."""

    conditional: IIfConditional

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Nothing to add."""
        del net, shift
        return [required(xs, 0, self)]


@dataclass(eq=False, kw_only=True)
class IIfConditionalOutputLayer(ILayer):
    """Input 0 where the condition (input 2) holds, else input 1.

    A condition known while building chooses the branch; one that is not is a selection between the
    results of both, which must have one shape.
    """

    conditional: IIfConditional

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Choose or select."""
        del shift
        a, b, condition = (required(xs, i, self) for i in range(3))
        if condition.type.num_elems != 1:
            raise NetworkError(f"'{self.name}': the condition is {condition.type}, not one value")
        if condition.values is not None:
            return [a if condition.values.ravel()[0] else b]
        if a.type != b.type:
            raise NetworkError(
                f"'{self.name}': the branches give {a.type} and {b.type}; a plan's shapes are "
                "fixed, so that a condition on the network's inputs needs equal ones"
            )
        flag = net.add_reshape(condition, (1,) * a.type.rank, name=f"{self.name}.condition")
        return net.add_select(flag.output, a, b, name=self.name).outputs
