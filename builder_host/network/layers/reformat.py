"""Reformat: the same logical tensor in another memory format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import TensorFormat

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReformatParams:
    """The format of the output."""

    format: TensorFormat


class Reformat:
    """x -> x; layout assignment inserts it."""

    kind = "reformat"
    params_type = ReformatParams

    def infer(self, params: ReformatParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that the format can hold the rank."""
        require_num_inputs(inputs, 1)
        require(
            params.format is TensorFormat.LINEAR or inputs[0].rank == 4,
            f"format {params.format.name} needs a rank-4 tensor, got {inputs[0]}",
        )
        return [inputs[0]]

    def reference(self, params: ReformatParams, inputs: Sequence[Array]) -> list[Array]:
        """The logical tensor does not change."""
        del params
        return [np.asarray(inputs[0]).copy()]


DEFINITION: LayerDefinition = Reformat()
