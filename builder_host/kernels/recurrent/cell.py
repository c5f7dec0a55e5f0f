"""What the recurrent families of both devices take from a problem: cell, roles, activations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Expr, Input, clip, substitute
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout
from builder_host.network.layers import activation
from builder_host.network.layers.recurrent import (
    DEFAULT_ACTIVATIONS,
    NUM_CLIPPED,
    RecurrentParams,
    by_role,
    reversed_directions,
)
from planformat.datatypes import DataType, TensorFormat

FloatArray = npt.NDArray[np.floating]

CELL_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


@dataclass(frozen=True, slots=True)
class Cell:
    """Extents of a projected recurrent layer and where its tensors are.

    Attributes:
        params: of the layer; `is_projected` holds.
        steps, batch, hidden: extents S, N, H.
        layouts: layout by role.
        arguments: position among the kernel's arguments by role.
    """

    params: RecurrentParams
    steps: int
    batch: int
    hidden: int
    layouts: dict[str, Layout]
    arguments: dict[str, int]

    @property
    def resets_before_product(self) -> bool:
        """A GRU whose reset gates must all be known before its hidden gate's product begins."""
        return self.params.cell == "gru" and not self.params.linear_before_reset

    @property
    def phase_gates(self) -> tuple[int, ...]:
        """Gates of each phase of a step; phases are apart where one needs all of the other."""
        return (2, 1) if self.resets_before_product else (self.params.num_gates,)

    def argument(self, role: str) -> int:
        """Position of an input's pointer, -1 where the layer lacks it."""
        return self.arguments.get(role, -1)

    def stride(self, role: str, axis: int) -> int:
        """Stride of an input in elements, 0 where the layer lacks it."""
        return self.layouts[role].strides[axis] if role in self.layouts else 0

    def is_reversed(self, direction: int) -> bool:
        """Whether a direction runs backwards; of a second one that is not there: no."""
        flags = reversed_directions(self.params)
        return direction < len(flags) and flags[direction]


def cell_of(problem: Problem, dtypes: frozenset[DataType]) -> Cell | None:
    """The cell of a problem that a written kernel can read, else None.

    All tensors are linear with contiguous hidden units; peepholes, the recurrent bias and lengths
    are dense; there is no epilogue.

    Args:
        problem: any.
        dtypes: element types that the kernel can store.
    """
    if problem.kind != "recurrent" or problem.epilogue is not None:
        return None
    params: RecurrentParams = problem.params
    if not params.is_projected or problem.is_constant[0]:
        return None
    layouts = by_role(params, problem.inputs)
    arguments = {role: number for number, role in enumerate(params.input_roles)}
    steps, batch, _ = layouts["x"].shape
    tensors = [*layouts.items(), *(("output", layout) for layout in problem.outputs)]
    for role, layout in tensors:
        if layout.format is not TensorFormat.LINEAR or 0 in layout.shape:
            return None
        if role not in ("lengths",) and layout.dtype not in dtypes:
            return None
        if role in ("peepholes", "recurrent_bias", "lengths") and not layout.is_dense:
            return None
        if role not in ("continuation", "lengths") and layout.strides[-1] != 1:
            return None
    if len({layout.dtype for role, layout in tensors if role != "lengths"}) > 1:
        return None
    return Cell(params, steps, batch, params.hidden_size, layouts, arguments)


def activation_texts(
    params: RecurrentParams, printer: Callable[[Expr], str]
) -> dict[tuple[int, int], str]:
    """Printed activations by direction (0, 1) and number (0, 1, 2), clipping included.

    Args:
        params: of the layer.
        printer: prints an expression over one operand.

    Returns:
        All six; those that the cell lacks repeat one that it has.
    """
    per_direction = len(DEFAULT_ACTIVATIONS[params.cell])
    chosen = params.all_activations
    found = {}
    for direction, number in itertools.product((0, 1), (0, 1, 2)):
        place = min(direction, params.num_directions - 1) * per_direction
        item = chosen[place + min(number, per_direction - 1)]
        expr = activation.DEFINITION.expression(item, 1)
        if params.clip is not None and number < NUM_CLIPPED:
            expr = substitute(expr, [clip(Input(0), -params.clip, params.clip)])
        found[direction, number] = printer(expr)
    return found
