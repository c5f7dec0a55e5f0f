"""What every layer kind states about itself, and the registry of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Expr
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


class LayerDefinition(Protocol):
    """One layer kind. Each module in `network/layers/` binds one instance to `DEFINITION`."""

    kind: str
    params_type: type[Any]

    def infer(self, params: Any, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Output types. Raises NetworkError naming the rule that the inputs break."""
        ...

    def reference(self, params: Any, inputs: Sequence[Array]) -> list[Array]:
        """Outputs computed in float64 (integers in int64, booleans as bool)."""
        ...


class PointwiseDefinition(LayerDefinition, Protocol):
    """A layer kind whose one output is a scalar expression of numpy-broadcast inputs."""

    def expression(self, params: Any, num_inputs: int) -> Expr:
        """The expression over `Input(0)` .. `Input(num_inputs - 1)`."""
        ...


def evaluate_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Numpy broadcast of shapes. Raises ValueError when they do not broadcast."""
    return tuple(int(d) for d in np.broadcast_shapes(*shapes))
