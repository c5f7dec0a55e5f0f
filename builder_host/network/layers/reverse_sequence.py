"""Reverse sequence: the first part of each sequence of a batch, backwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_axis, require_index, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReverseSequenceParams:
    """Which dimension counts sequences and which one steps; they differ."""

    batch_axis: int
    time_axis: int


class ReverseSequence:
    """x, lengths[batch] -> y: steps 0..length-1 of each sequence backwards, the rest unchanged.

    A length outside 0..steps counts as the nearer of both.
    """

    kind = "reverse_sequence"
    params_type = ReverseSequenceParams

    def infer(
        self, params: ReverseSequenceParams, inputs: Sequence[TensorType]
    ) -> list[TensorType]:
        """Check the axes and the number of lengths."""
        require_num_inputs(inputs, 2)
        x, lengths = inputs
        require_axis(params.batch_axis, x.rank)
        require_axis(params.time_axis, x.rank)
        require(
            params.batch_axis != params.time_axis,
            f"batch and time are the same axis {params.batch_axis}",
        )
        require_index(lengths)
        require(
            lengths.shape == (x.shape[params.batch_axis],),
            f"lengths {lengths} do not fit axis {params.batch_axis} of {x}",
        )
        return [x]

    def reference(self, params: ReverseSequenceParams, inputs: Sequence[Array]) -> list[Array]:
        """One sequence after the other."""
        x, lengths = (np.asarray(v) for v in inputs)
        y = np.moveaxis(x, (params.batch_axis, params.time_axis), (0, 1)).copy()
        for row, length in enumerate(np.clip(lengths, 0, y.shape[1])):
            y[row, :length] = y[row, :length][::-1].copy()
        return [np.ascontiguousarray(np.moveaxis(y, (0, 1), (params.batch_axis, params.time_axis)))]


DEFINITION: LayerDefinition = ReverseSequence()
