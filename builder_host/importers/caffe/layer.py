"""What an op module sees of one Caffe layer, and how it adds to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Input
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec, WeightSource
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.network import Network, Tensor

Array = npt.NDArray[Any]


@dataclass(slots=True)
class CaffeLayer:
    """One layer of the file with its inputs ready.

    Attributes:
        message: LayerParameter.
        origin: `deploy.prototxt:37 Convolution 'conv1'`.
        bottoms: input tensors.
        top_names: wanted tensor name per top.
        network: to add to.
        source: weights.
        tops: what the op made, by top index.
    """

    message: Any
    origin: str
    bottoms: list[Tensor]
    top_names: list[str]
    network: Network
    source: WeightSource
    tops: dict[int, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in the file."""
        return str(self.message.name)

    @property
    def bottom(self) -> Tensor:
        """The only bottom. Raises LayerProblem when there is not exactly one."""
        self.require_bottoms(1)
        return self.bottoms[0]

    def require_bottoms(self, low: int, high: int | None = None) -> None:
        """Check the number of bottoms. Raises LayerProblem."""
        high = low if high is None else high
        if not low <= len(self.bottoms) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise LayerProblem(f"has {len(self.bottoms)} bottoms, takes {wanted}")

    def axis(self, value: int, tensor: Tensor, *, what: str = "axis", end: bool = False) -> int:
        """`value` counted from the front. Raises LayerProblem when out of range.

        With `end` the rank itself is legal too (one past the last axis).
        """
        rank = len(tensor.shape)
        if not -rank <= value < rank + end:
            raise LayerProblem(
                f"{what} is {value}, the bottom {shape_text(tensor)} has {rank} dimensions"
            )
        return value + rank if value < 0 else value

    # --- weights -------------------------------------------------------------------------

    def weights(self, specs: Sequence[BlobSpec]) -> list[Array]:
        """Float32 arrays in the shapes of the specs. Raises LayerProblem."""
        shared = [p.name for p in self.message.param]
        return self.source.arrays(self.name, specs, shared)

    def constant(self, values: Array, role: str) -> Tensor:
        """A float32 constant tensor named after the layer."""
        array = np.asarray(values, dtype=np.float32)
        return self.network.add_constant(array, f"{self.name}.{role}")

    # --- adding --------------------------------------------------------------------------

    def add(self, kind: str, params: Any, inputs: Sequence[Tensor], part: str) -> Tensor:
        """Add an intermediate layer named `<layer>/<part>`; its first output."""
        made = self.network.add_layer(
            kind, params, inputs, f"{self.name}/{part}", origin=self.origin
        )
        return made.outputs[0]

    def emit(self, kind: str, params: Any, inputs: Sequence[Tensor], top: int = 0) -> Tensor:
        """Add the layer whose first output is top number `top`."""
        wanted = self.top_names[top] if top < len(self.top_names) else self.name
        same = wanted == self.name and top == 0
        made = self.network.add_layer(
            kind,
            params,
            inputs,
            self.name,
            output_names=() if same else (wanted,),
            origin=self.origin,
        )
        self.tops[top] = made.outputs[0]
        return made.outputs[0]

    def alias(self, tensor: Tensor, top: int = 0) -> None:
        """Make a top another name of a tensor."""
        self.tops[top] = tensor

    def emit_reshape(self, tensor: Tensor, shape: Sequence[int], top: int = 0) -> None:
        """Make a top the tensor in another shape; no layer when the shape is the same."""
        if tuple(shape) == tensor.shape:
            self.alias(tensor, top)
        else:
            self.emit("reshape", ReshapeParams(tuple(shape)), [tensor], top)

    def reshaped(self, tensor: Tensor, shape: Sequence[int], part: str) -> Tensor:
        """The tensor in another shape, by an intermediate layer when it differs."""
        if tuple(shape) == tensor.shape:
            return tensor
        return self.add("reshape", ReshapeParams(tuple(shape)), [tensor], part)


def identity_params() -> PointwiseParams:
    """Parameters of a layer that copies its input."""
    return PointwiseParams(Input(0))


def shape_text(tensor: Tensor) -> str:
    """E.g. `1x3x227x227`."""
    return "x".join(map(str, tensor.shape)) or "scalar"
