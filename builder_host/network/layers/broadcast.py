"""Broadcast: repeat dimensions of extent 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require_broadcastable_to, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class BroadcastParams:
    """The shape to reach."""

    shape: tuple[int, ...]


class Broadcast:
    """x -> numpy.broadcast_to(x, shape)."""

    kind = "broadcast"
    params_type = BroadcastParams

    def infer(self, params: BroadcastParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the input broadcasts to exactly the shape."""
        require_num_inputs(inputs, 1)
        require_broadcastable_to(inputs[0].shape, params.shape, "input shape")
        return [TensorType(params.shape, inputs[0].dtype)]

    def reference(self, params: BroadcastParams, inputs: Sequence[Array]) -> list[Array]:
        """A copy."""
        return [np.broadcast_to(inputs[0], params.shape).copy()]


DEFINITION: LayerDefinition = Broadcast()
