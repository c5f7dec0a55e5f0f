"""One recurrent layer over all its steps: LSTM, GRU or a plain RNN, in one or both directions.

Time comes first: x[S,N,E]. Gates lie in ONNX order, LSTM input, output, forget, cell; GRU update,
reset, hidden. D is the number of directions (backward second), G of gates, H the hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers import activation
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.pointwise_kind import evaluate_expression
from builder_host.network.rules import require
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]
Item = TypeVar("Item")

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
NUM_CLIPPED = 2  # activations of gates and candidate; the third takes the cell state
DEFAULT_ACTIVATIONS: dict[str, tuple[ActivationParams, ...]] = {
    "lstm": (ActivationParams("sigmoid"), ActivationParams("tanh"), ActivationParams("tanh")),
    "gru": (ActivationParams("sigmoid"), ActivationParams("tanh")),
    "rnn": (ActivationParams("tanh"),),
}


@dataclass(frozen=True, slots=True)
class RecurrentParams:
    """What the cell computes and which inputs there are; `input_roles` gives their order.

    Attributes:
        cell: `lstm`, `gru` or `rnn`.
        hidden_size: H.
        direction: `reverse` runs from the last step to the first; outputs stay at their steps.
        activations: per direction: LSTM gates, candidate, output; GRU gates, candidate; RNN one.
        clip: bound of the sums of each gate and candidate, or None. The cell state that enters the
            output is not clipped, as in ONNX Runtime; the ONNX text leaves it open.
        couples_input_forget: LSTM: the forget gate is 1 - input gate.
        linear_before_reset: GRU: the reset gate multiplies the product with R and its bias.
        is_projected: x[S,N,D*G*H] holds W x + biases already; there is no W and no bias.
        has_peepholes: LSTM: p[D,3H] for input, output and forget gate.
        has_hidden: initial hidden state [D,N,H]; else zero.
        has_cell: LSTM: initial cell state [D,N,H]; else zero.
        has_lengths: INT32 [N]: steps of each item; later outputs are zero, states stay.
        has_continuation: [S,N] factors of both states before each step; a zero clears them.
    """

    cell: Literal["lstm", "gru", "rnn"]
    hidden_size: int
    direction: Literal["forward", "reverse", "bidirectional"] = "forward"
    activations: tuple[ActivationParams, ...] = ()
    clip: float | None = None
    couples_input_forget: bool = False
    linear_before_reset: bool = False
    is_projected: bool = False
    has_peepholes: bool = False
    has_hidden: bool = False
    has_cell: bool = False
    has_lengths: bool = False
    has_continuation: bool = False

    @property
    def num_directions(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def num_gates(self) -> int:
        """Rows of W and R per hidden unit."""
        return NUM_GATES[self.cell]

    @property
    def is_lbr_gru(self) -> bool:
        """A GRU whose hidden gate has a bias inside the reset product."""
        return self.cell == "gru" and self.linear_before_reset

    @property
    def all_activations(self) -> tuple[ActivationParams, ...]:
        """`activations`, or the defaults of the cell for each direction."""
        return self.activations or DEFAULT_ACTIVATIONS[self.cell] * self.num_directions

    @property
    def input_roles(self) -> tuple[str, ...]:
        """Names of the inputs in order."""
        optional = (
            ("weights", not self.is_projected),
            ("recurrent", True),
            ("bias", not self.is_projected),
            ("recurrent_bias", self.is_lbr_gru),
            ("peepholes", self.has_peepholes),
            ("hidden", self.has_hidden),
            ("cell", self.has_cell),
            ("lengths", self.has_lengths),
            ("continuation", self.has_continuation),
        )
        return ("x", *(role for role, is_there in optional if is_there))


def by_role(params: RecurrentParams, inputs: Sequence[Item]) -> dict[str, Item]:
    """The inputs by their roles; as many as there are roles."""
    return dict(zip(params.input_roles, inputs, strict=True))


def reversed_directions(params: RecurrentParams) -> tuple[bool, ...]:
    """For each direction whether it runs from the last step to the first."""
    return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[
        params.direction
    ]


class Recurrent:
    """x[S,N,E], w[D,GH,E], r[D,GH,H], b[D,GH] -> y[S,N,DH], last hidden (and cell) [D,N,H]."""

    kind = "recurrent"
    params_type = RecurrentParams

    def infer(self, params: RecurrentParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check the shape of every input against x and the hidden size."""
        _check_params(params)
        roles = params.input_roles
        require(
            len(inputs) == len(roles),
            f"takes {len(roles)} inputs ({', '.join(roles)}), got {len(inputs)}",
        )
        given = by_role(params, inputs)
        x = given["x"]
        require(x.rank == 3, f"x must be [steps, batch, features], got {x}")
        require(x.dtype.is_float, f"x must be a float tensor, got {x}")
        steps, batch, features = x.shape
        hidden, directions = params.hidden_size, params.num_directions
        rows = params.num_gates * hidden
        shapes: Mapping[str, tuple[int, ...]] = {
            "x": (steps, batch, directions * rows if params.is_projected else features),
            "weights": (directions, rows, features),
            "recurrent": (directions, rows, hidden),
            "bias": (directions, rows),
            "recurrent_bias": (directions, hidden),
            "peepholes": (directions, 3 * hidden),
            "hidden": (directions, batch, hidden),
            "cell": (directions, batch, hidden),
            "lengths": (batch,),
            "continuation": (steps, batch),
        }
        for role, tensor in given.items():
            require(
                tensor.shape == shapes[role],
                f"{role} has shape {tensor.shape}, expected {shapes[role]} for x {x.shape}, "
                f"hidden size {hidden} and {directions} direction(s)",
            )
            wanted = DataType.INT32 if role == "lengths" else x.dtype
            require(
                tensor.dtype is wanted,
                f"{role} must have element type {wanted.text}, got {tensor.dtype.text}",
            )
        state = TensorType((directions, batch, hidden), x.dtype)
        y = TensorType((steps, batch, directions * hidden), x.dtype)
        return [y, state, state] if params.cell == "lstm" else [y, state]

    def reference(self, params: RecurrentParams, inputs: Sequence[Array]) -> list[Array]:
        """Step by step in float64."""
        given = by_role(params, [np.asarray(v) for v in inputs])
        x = given["x"].astype(np.float64)
        steps, batch, _ = x.shape
        hidden, directions = params.hidden_size, params.num_directions
        rows = params.num_gates * hidden
        y = np.zeros((steps, batch, directions * hidden))
        last = np.zeros((2, directions, batch, hidden))
        lengths = given.get("lengths", np.full(batch, steps))
        for d, is_reversed in enumerate(reversed_directions(params)):
            if params.is_projected:
                projected = x[:, :, d * rows : (d + 1) * rows]
            else:
                projected = x @ given["weights"][d].T + given["bias"][d]
            state = np.zeros((2, batch, hidden))
            for index, role in enumerate(("hidden", "cell")):
                if role in given:
                    state[index] = given[role][d]
            for step in reversed(range(steps)) if is_reversed else range(steps):
                before = state
                if "continuation" in given:
                    factor = given["continuation"][step][:, None]
                    before = np.where(factor == 0, 0.0, state * factor)
                after = _step(params, d, projected[step], before, given)
                is_live = (step < lengths)[:, None]
                state = np.where(is_live, after, state)
                part = slice(d * hidden, (d + 1) * hidden)
                y[step, :, part] = np.where(is_live, after[0], 0.0)
            last[:, d] = state
        return [y, last[0], last[1]] if params.cell == "lstm" else [y, last[0]]


def _check_params(params: RecurrentParams) -> None:
    require(params.cell in NUM_GATES, f"cell '{params.cell}' is not one of {', '.join(NUM_GATES)}")
    require(params.hidden_size >= 1, f"hidden_size is {params.hidden_size}, must be at least 1")
    require(
        params.direction in ("forward", "reverse", "bidirectional"),
        f"direction '{params.direction}' is not one of forward, reverse, bidirectional",
    )
    wanted = len(DEFAULT_ACTIVATIONS[params.cell]) * params.num_directions
    require(
        len(params.all_activations) == wanted,
        f"{params.cell} {params.direction} takes {wanted} activations, "
        f"got {len(params.activations)}",
    )
    for item in params.all_activations:
        require(
            item.function in activation.FUNCTIONS,
            f"activation '{item.function}' is not one of {', '.join(activation.FUNCTIONS)}",
        )
    require(params.clip is None or params.clip > 0, f"clip is {params.clip}, must be positive")
    for flag, cell in (
        ("couples_input_forget", "lstm"),
        ("has_peepholes", "lstm"),
        ("has_cell", "lstm"),
        ("linear_before_reset", "gru"),
    ):
        require(params.cell == cell or not getattr(params, flag), f"{flag} belongs to {cell} only")


def _step(
    params: RecurrentParams,
    direction: int,
    projected: Array,
    state: Array,
    given: Mapping[str, Array],
) -> Array:
    """Hidden and cell state [2,N,H] after one step; the cell of GRU and RNN stays zero."""
    size = params.hidden_size
    count = len(DEFAULT_ACTIVATIONS[params.cell])
    chosen = params.all_activations[direction * count : (direction + 1) * count]

    def act(number: int, value: Array) -> Array:
        if params.clip is not None and number < NUM_CLIPPED:
            value = np.clip(value, -params.clip, params.clip)
        return evaluate_expression(activation.DEFINITION.expression(chosen[number], 1), [value])

    recurrent = given["recurrent"][direction]
    hidden, cell = state
    gates = [projected[:, g * size : (g + 1) * size] for g in range(params.num_gates)]
    weights = [recurrent[g * size : (g + 1) * size] for g in range(params.num_gates)]
    if params.cell == "rnn":
        return np.stack([act(0, gates[0] + hidden @ weights[0].T), cell])
    sums = [hidden @ w.T for w in weights]
    if params.cell == "gru":
        update, reset = (act(0, gates[i] + sums[i]) for i in (0, 1))
        if params.linear_before_reset:
            inner = reset * (sums[2] + given["recurrent_bias"][direction])
        else:
            inner = (reset * hidden) @ weights[2].T
        candidate = act(1, gates[2] + inner)
        return np.stack([(1.0 - update) * candidate + update * hidden, cell])
    peepholes = np.zeros((3, size))
    if "peepholes" in given:
        peepholes = given["peepholes"][direction].reshape(3, size)
    input_gate = act(0, gates[0] + sums[0] + peepholes[0] * cell)
    forget_gate = act(0, gates[2] + sums[2] + peepholes[2] * cell)
    if params.couples_input_forget:
        forget_gate = 1.0 - input_gate
    cell = forget_gate * cell + input_gate * act(1, gates[3] + sums[3])
    output_gate = act(0, gates[1] + sums[1] + peepholes[1] * cell)
    return np.stack([output_gate * act(2, cell), cell])


DEFINITION: LayerDefinition = Recurrent()
