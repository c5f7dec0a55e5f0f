"""`add_rnn`: stacks of recurrent layers with TensorRT's RNNv2 meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.network.api import NetworkDoor
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.recurrent import NUM_GATES, RecurrentParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.transpose import TransposeParams

if TYPE_CHECKING:
    from builder_host.network.network import Tensor

Array = npt.NDArray[Any]

GATES: Mapping[str, tuple[str, ...]] = {
    "lstm": ("input", "output", "forget", "cell"),
    "gru": ("update", "reset", "hidden"),
    "relu": ("input",),
    "tanh": ("input",),
}
Cell = Literal["lstm", "gru", "relu", "tanh"]
Direction = Literal["forward", "reverse", "bidirectional"]


@dataclass(frozen=True, slots=True)
class RnnWeights:
    """Parameters of one layer; rows are gates in the order of `GATES`, then hidden units.

    Attributes:
        recurrent: [D,G*H,H].
        weights: [D,G*H,E]; None in a first layer whose input skips it.
        bias, recurrent_bias: [D,G*H]; None is zero.
        peepholes: LSTM only: [D,3*H] of input, output and forget gate.
    """

    recurrent: Array
    weights: Array | None = None
    bias: Array | None = None
    recurrent_bias: Array | None = None
    peepholes: Array | None = None


@dataclass(frozen=True, slots=True)
class RnnOutputs:
    """What a stack gives: output of the last layer; last states [L*D,N,H] of all layers."""

    output: Tensor
    hidden: Tensor
    cell: Tensor | None


def stack_gates(cell: Cell, gates: Mapping[str, Array]) -> Array:
    """Join what is given per gate along its first axis, in the order of `GATES`.

    Raises:
        NetworkError: a gate is missing or unknown.
    """
    wanted = GATES[cell]
    if set(gates) != set(wanted):
        raise NetworkError(
            f"{cell} has the gates {', '.join(wanted)}; given were {', '.join(sorted(gates))}"
        )
    return np.concatenate([np.asarray(gates[name]) for name in wanted])


class RecurrentMethods(NetworkDoor):
    """Part of `Network`."""

    def add_rnn(
        self,
        x: Tensor,
        cell: Cell,
        hidden_size: int,
        layers: Sequence[RnnWeights],
        *,
        direction: Direction = "forward",
        input_mode: Literal["linear", "skip"] = "linear",
        batch_first: bool = True,
        initial_hidden: Array | Tensor | None = None,
        initial_cell: Array | Tensor | None = None,
        lengths: Tensor | None = None,
        activations: Sequence[ActivationParams] = (),
        clip: float | None = None,
        couples_input_forget: bool = False,
        linear_before_reset: bool = True,
        name: str = "",
    ) -> RnnOutputs:
        """A stack of recurrent layers, each reading what the one below puts out.

        Args:
            x: [N,S,E], or [S,N,E] without batch_first; so is the output, with D*H features.
            cell: `lstm`, `gru`, or a plain layer with `relu` or `tanh`.
            hidden_size: H.
            layers: from the bottom up.
            direction: `bidirectional` gives every layer two directions, D is 2.
            input_mode: `skip`: each gate of the first layer adds x itself, so E must be H.
            batch_first: order of batch and steps.
            initial_hidden: [L*D,N,H], row l*D+d; None is zero.
            initial_cell: likewise, LSTM only.
            lengths: INT32 [N], steps of each item; the output is zero behind them.
            activations: per direction, see `RecurrentParams`; default sigmoid and tanh.
            clip: bound of the sums of each gate and candidate.
            couples_input_forget: LSTM: forget gate = 1 - input gate.
            linear_before_reset: GRU: the reset gate multiplies R h + bias, as cuDNN has it; else h.
            name: of the layers, numbered from 0.

        Raises:
            NetworkError: shapes or counts do not fit.
        """
        if not layers:
            raise NetworkError(f"'{name or cell}': a stack needs at least one layer")
        base = name or cell
        if cell in ("relu", "tanh"):
            directions = 2 if direction == "bidirectional" else 1
            activations = activations or (ActivationParams(cell),) * directions
        stack = _Stack(
            self,
            x,
            RecurrentParams(
                cast(Literal["lstm", "gru", "rnn"], "rnn" if cell in ("relu", "tanh") else cell),
                hidden_size,
                direction,
                tuple(activations),
                clip,
                couples_input_forget,
                linear_before_reset and cell == "gru",
                has_hidden=initial_hidden is not None,
                has_cell=initial_cell is not None,
                has_lengths=lengths is not None,
            ),
            base,
        )
        y = stack.swapped(x, f"{base}.steps") if batch_first else x
        states: list[list[Tensor]] = []
        for number, weights in enumerate(layers):
            skips = input_mode == "skip" and number == 0
            given = {
                "hidden": stack.state(initial_hidden, number, len(layers), "hidden"),
                "cell": stack.state(initial_cell, number, len(layers), "cell"),
                "lengths": lengths,
            }
            y, *last = stack.layer(y, weights, given, number, skips=skips)
            states.append(last)
        joined = [
            stack.joined([row[i] for row in states], f"{base}.{what}")
            for i, what in enumerate(("hidden", "cell")[: len(states[0])])
        ]
        output = stack.swapped(y, f"{base}.output") if batch_first else y
        return RnnOutputs(output, joined[0], joined[1] if len(joined) > 1 else None)


class _Stack:
    """Adds the layers of one call."""

    def __init__(self, network: NetworkDoor, x: Tensor, params: RecurrentParams, name: str) -> None:
        if x.type.rank != 3:
            raise NetworkError(f"'{name}': x must have three dimensions, got {x.type}")
        self.network = network
        self.like = x
        self.params = params
        self.name = name

    def constant(self, values: Array, shape: tuple[int, ...], what: str) -> Tensor:
        return self.network._operand(np.asarray(values), self.like, what, shape)

    def swapped(self, tensor: Tensor, name: str) -> Tensor:
        return self.network.add_layer(
            "transpose", TransposeParams((1, 0, 2)), [tensor], name
        ).output

    def joined(self, tensors: list[Tensor], name: str) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        return self.network.add_layer("concatenation", ConcatenationParams(0), tensors, name).output

    def state(
        self, given: Array | Tensor | None, number: int, count: int, what: str
    ) -> Tensor | None:
        """Rows of one layer of an initial state."""
        if given is None:
            return None
        directions = self.params.num_directions
        shape = np.shape(given) if isinstance(given, np.ndarray) else given.shape
        if len(shape) != 3 or shape[0] != count * directions:
            raise NetworkError(
                f"'{self.name}': initial {what} has shape {shape}, expected "
                f"({count * directions}, N, {self.params.hidden_size})"
            )
        label = f"{self.name}.{number}.{what}"
        if isinstance(given, np.ndarray):
            part = given[number * directions : (number + 1) * directions]
            return self.constant(part, part.shape, label)
        if count == 1:
            return given
        params = SliceParams((number * directions, 0, 0), (directions, *shape[1:]), (1, 1, 1))
        return self.network.add_layer("slice", params, [given], label).output

    def layer(
        self,
        x: Tensor,
        weights: RnnWeights,
        given: Mapping[str, Tensor | None],
        number: int,
        *,
        skips: bool,
    ) -> list[Tensor]:
        """Outputs of one layer: y, hidden, cell."""
        params = replace(
            self.params, has_peepholes=weights.peepholes is not None, is_projected=skips
        )
        label = f"{self.name}.{number}"
        directions, hidden = params.num_directions, params.hidden_size
        rows = NUM_GATES[params.cell] * hidden
        if (weights.weights is None) != skips:
            raise NetworkError(
                f"'{label}': weights are {'given' if skips else 'missing'}, but this layer "
                f"{'adds its input to each gate' if skips else 'multiplies its input'}"
            )
        bias, inner = self._biases(weights, label)
        tensors: dict[str, Tensor | None] = dict(given)
        tensors["recurrent"] = self.constant(
            weights.recurrent, (directions, rows, hidden), f"{label}.recurrent"
        )
        if params.is_lbr_gru:
            tensors["recurrent_bias"] = self.constant(
                inner, (directions, hidden), f"{label}.recurrent_bias"
            )
        if weights.peepholes is not None:
            shape = (directions, 3 * hidden)
            tensors["peepholes"] = self.constant(weights.peepholes, shape, f"{label}.peepholes")
        if weights.weights is None:
            tensors["x"] = self._repeated(x, bias, label)
        else:
            tensors["x"] = x
            tensors["weights"] = self.constant(
                weights.weights, (directions, rows, x.shape[2]), f"{label}.weights"
            )
            tensors["bias"] = self.constant(bias, (directions, rows), f"{label}.bias")
        inputs = [t for role in params.input_roles if (t := tensors[role]) is not None]
        return list(self.network.add_layer("recurrent", params, inputs, label).outputs)

    def _biases(self, weights: RnnWeights, label: str) -> tuple[Array, Array]:
        """What is added to W x, and what a GRU adds to R h inside its reset product."""
        directions, hidden = self.params.num_directions, self.params.hidden_size
        shape = (directions, self.params.num_gates * hidden)
        found = []
        for values, what in ((weights.bias, "bias"), (weights.recurrent_bias, "recurrent_bias")):
            array = np.zeros(shape) if values is None else np.asarray(values, np.float64)
            if array.size != int(np.prod(shape)):
                raise NetworkError(f"'{label}': {what} has shape {array.shape}, expected {shape}")
            found.append(array.reshape(shape))
        outside, inner = found[0], found[1].copy()
        if not self.params.is_lbr_gru:
            return outside + inner, np.zeros((directions, hidden))
        last = inner[:, 2 * hidden :].copy()
        inner[:, 2 * hidden :] = 0.0
        return outside + inner, last

    def _repeated(self, x: Tensor, bias: Array, label: str) -> Tensor:
        """The input as the projection of every gate."""
        steps, batch, features = x.shape
        if features != self.params.hidden_size:
            raise NetworkError(
                f"'{label}': the input has {features} features; to be added to each gate it "
                f"needs as many as hidden units, {self.params.hidden_size}"
            )
        copies = self.params.num_directions * self.params.num_gates
        add = self.network.add_layer
        apart = add("reshape", ReshapeParams((steps, batch, 1, features)), [x], f"{label}.apart")
        wide = add(
            "broadcast",
            BroadcastParams((steps, batch, copies, features)),
            [apart.output],
            f"{label}.copies",
        )
        flat = ReshapeParams((steps, batch, copies * features))
        gates = add("reshape", flat, [wide.output], f"{label}.gates")
        values = self.constant(bias, (copies * features,), f"{label}.bias")
        return add(
            "elementwise", ElementwiseParams("add"), [gates.output, values], f"{label}.inputs"
        ).output
