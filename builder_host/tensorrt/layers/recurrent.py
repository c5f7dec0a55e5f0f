"""Recurrent layers of TensorRT 1 to 9: RNN with packed weights, RNNv2 with weights per gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.api_recurrent import GATES, RnnOutputs, RnnWeights, stack_gates
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import RNNDirection, RNNGateType, RNNInputMode, RNNOperation
from builder_host.tensorrt.layers.base import (
    ILayer,
    optional,
    optional_weights,
    required,
    weights_of,
)

# Gates of each operation under the names of `GATES`.
_GATE_OF: Mapping[RNNOperation, Mapping[RNNGateType, str]] = {
    RNNOperation.LSTM: {
        RNNGateType.INPUT: "input",
        RNNGateType.OUTPUT: "output",
        RNNGateType.FORGET: "forget",
        RNNGateType.CELL: "cell",
    },
    RNNOperation.GRU: {
        RNNGateType.UPDATE: "update",
        RNNGateType.RESET: "reset",
        RNNGateType.HIDDEN: "hidden",
    },
    RNNOperation.RELU: {RNNGateType.INPUT: "input"},
    RNNOperation.TANH: {RNNGateType.INPUT: "input"},
}
# Order of the gates in the packed weights of `add_rnn`.
_PACKED = {
    RNNOperation.LSTM: ("forget", "input", "cell", "output"),
    RNNOperation.GRU: ("update", "reset", "hidden"),
    RNNOperation.RELU: ("input",),
    RNNOperation.TANH: ("input",),
}


@dataclass(eq=False, kw_only=True)
class IRNNv2Layer(ILayer):
    """A stack of recurrent layers whose weights are set gate by gate.

    The input is [N, S, E]. Outputs are [N, S, H] ([N, S, 2H] in both directions), the last hidden
    state [N, L, H] ([N, 2L, H]) and, of an LSTM, the last cell state.

    Attributes:
        seq_lengths: INT32 [N]: steps of each item; None: all.
        hidden_state: shaped like the second output; None is zero.
        cell_state: likewise.
    """

    num_layers: int
    hidden_size: int
    max_seq_length: int
    op: RNNOperation
    input_mode: RNNInputMode = RNNInputMode.LINEAR
    direction: RNNDirection = RNNDirection.UNIDIRECTION
    gates: dict[tuple[int, RNNGateType, bool], Any] = field(default_factory=dict)
    biases: dict[tuple[int, RNNGateType, bool], Any] = field(default_factory=dict)

    # Optional tensors are inputs 1 to 3, so that shapes and loops see them.
    @property
    def seq_lengths(self) -> Any:
        """See the class."""
        return optional(self.inputs, 1)  # type: ignore[arg-type]

    @seq_lengths.setter
    def seq_lengths(self, tensor: Any) -> None:
        self.set_input(1, tensor)

    @property
    def hidden_state(self) -> Any:
        """See the class."""
        return optional(self.inputs, 2)  # type: ignore[arg-type]

    @hidden_state.setter
    def hidden_state(self, tensor: Any) -> None:
        self.set_input(2, tensor)

    @property
    def cell_state(self) -> Any:
        """See the class."""
        return optional(self.inputs, 3)  # type: ignore[arg-type]

    @cell_state.setter
    def cell_state(self, tensor: Any) -> None:
        self.set_input(3, tensor)

    @property
    def data_length(self) -> int:
        """Features of an input step."""
        data = self.inputs[0]
        return int(data.shape[-1]) if data is not None else 0

    def set_weights_for_gate(
        self, layer_index: int, gate: RNNGateType, is_w: bool, weights: Any
    ) -> None:
        """Weights [H, E] (`is_w`) or [H, H] of a gate; index l*2+d where there are two directions.

        Raises:
            NetworkError: the operation has no such gate, or the stack no such layer.
        """
        self.gates[self._place(layer_index, gate, is_w)] = weights
        self.count_change()

    def set_bias_for_gate(self, layer_index: int, gate: RNNGateType, is_w: bool, bias: Any) -> None:
        """Bias [H] of a gate; without it the bias is zero. Raises as `set_weights_for_gate`."""
        self.biases[self._place(layer_index, gate, is_w)] = bias
        self.count_change()

    @property
    def num_directions(self) -> int:
        """2 for bidirectional stacks."""
        return 2 if self.direction is RNNDirection.BIDIRECTION else 1

    def _place(
        self, layer_index: int, gate: RNNGateType, is_w: bool
    ) -> tuple[int, RNNGateType, bool]:
        if gate not in _GATE_OF[self.op]:
            known = ", ".join(g.name for g in _GATE_OF[self.op])
            raise NetworkError(f"'{self.name}': {self.op.name} has no gate {gate.name}: {known}")
        if not 0 <= layer_index < self.num_layers * 2:
            raise NetworkError(f"'{self.name}': no layer {layer_index} in {self.num_layers}")
        return layer_index, gate, is_w

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the stack."""
        del shift
        x, lengths = required(xs, 0, self), optional(xs, 1)
        if lengths is not None and lengths.type.rank != 1:
            lengths = net.add_reshape(lengths, (x.shape[0],), name=f"{self.name}.lengths").output
        states = [self._swapped(net, optional(xs, i)) for i in (2, 3)]
        layers = [self._weights(number, x.shape[-1]) for number in range(self.num_layers)]
        y = _stack(net, self, x, layers, states, lengths, is_batch_first=True)
        hidden, cell = (self._swapped(net, state) for state in (y.hidden, y.cell))
        return [state for state in (y.output, hidden, cell) if state is not None]

    def _swapped(self, net: Network, state: Tensor | None) -> Tensor | None:
        """States have the batch first here, the layers first in edgeplan's own API."""
        if state is None:
            return None
        return net.add_transpose(state, (1, 0, 2), name=f"{self.name}.state").output

    def _weights(self, number: int, features: int) -> RnnWeights:
        wide = features if number == 0 else self.hidden_size * self.num_directions
        is_skipped = number == 0 and self.input_mode is RNNInputMode.SKIP
        sides = [number * self.num_directions + d for d in range(self.num_directions)]
        return RnnWeights(
            recurrent=np.stack([self._gates(side, False, self.hidden_size) for side in sides]),
            weights=None
            if is_skipped
            else np.stack([self._gates(side, True, wide) for side in sides]),
            bias=np.stack([self._biases(side, True) for side in sides]),
            recurrent_bias=np.stack([self._biases(side, False) for side in sides]),
        )

    def _gates(self, side: int, is_w: bool, columns: int) -> Any:
        found = {}
        for gate, name in _GATE_OF[self.op].items():
            weights = self.gates.get((side, gate, is_w))
            if weights is None:
                kind = "input" if is_w else "recurrent"
                raise NetworkError(
                    f"'{self.name}': layer {side} has no {kind} weights for gate {gate.name}"
                )
            array = weights_of(weights, self)
            if array.size != self.hidden_size * columns:
                raise NetworkError(
                    f"'{self.name}': layer {side}, gate {gate.name}: {array.size} weights, "
                    f"expected {self.hidden_size} x {columns}"
                )
            found[name] = array.reshape(self.hidden_size, columns)
        return stack_gates(self.op.value, found)

    def _biases(self, side: int, is_w: bool) -> Any:
        zero = np.zeros(self.hidden_size, np.float32)
        found = {}
        for gate, name in _GATE_OF[self.op].items():
            bias = optional_weights(self.biases.get((side, gate, is_w)))
            found[name] = zero if bias is None else bias.reshape(self.hidden_size)
        return stack_gates(self.op.value, found)


@dataclass(eq=False, kw_only=True)
class IRNNLayer(ILayer):
    """A stack of recurrent layers with packed weights.

    The input is [S, N, E], outputs are [S, N, H] and the last states [L, N, H], twice as many
    features and states in both directions. For each layer (and direction) `weights` holds the input
    matrices of all gates, then the recurrent ones; `bias` likewise. Gates of an LSTM are in the
    order f, i, c, o, of a GRU z, r, h.
    """

    num_layers: int
    hidden_size: int
    max_seq_length: int
    op: RNNOperation
    input_mode: RNNInputMode
    direction: RNNDirection
    weights: Any
    bias: Any

    @property
    def hidden_state(self) -> Any:
        """State before the first step; None is zero."""
        return optional(self.inputs, 1)  # type: ignore[arg-type]

    @hidden_state.setter
    def hidden_state(self, tensor: Any) -> None:
        self.set_input(1, tensor)

    @property
    def cell_state(self) -> Any:
        """Cell before the first step; None is zero."""
        return optional(self.inputs, 2)  # type: ignore[arg-type]

    @cell_state.setter
    def cell_state(self, tensor: Any) -> None:
        self.set_input(2, tensor)

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the stack."""
        given = [optional(xs, i) for i in range(3)]
        if shift:
            if required(xs, 0, self).shape[0] != 1:
                raise NetworkError(
                    f"'{self.name}': add_rnn has its batch inside the tensor; set max_batch_size=1"
                )
            given = [
                None
                if t is None
                else net.add_reshape(t, t.shape[1:], name=f"{self.name}.input").output
                for t in given
            ]
        x, *states = given
        if x is None:
            raise NetworkError(f"'{self.name}': input 0 is missing")
        y = _stack(net, self, x, self._layers(x.shape[-1]), states, None, is_batch_first=False)
        outputs = [state for state in (y.output, y.hidden, y.cell) if state is not None]
        if not shift:
            return outputs
        return [
            net.add_reshape(t, (1, *t.shape), name=f"{self.name}.output").output for t in outputs
        ]

    def _layers(self, features: int) -> list[RnnWeights]:
        directions = 2 if self.direction is RNNDirection.BIDIRECTION else 1
        gates, size = _PACKED[self.op], self.hidden_size
        weights = weights_of(self.weights, self).ravel()
        bias = optional_weights(self.bias)
        widths = [features, *[size * directions] * (self.num_layers - 1)]
        is_skipped = self.input_mode is RNNInputMode.SKIP
        counts = [0 if is_skipped and i == 0 else wide for i, wide in enumerate(widths)]
        needed = sum(directions * len(gates) * size * (wide + size) for wide in counts)
        num_biases = self.num_layers * directions * 2 * len(gates) * size
        if weights.size != needed or (bias is not None and bias.size != num_biases):
            raise NetworkError(
                f"'{self.name}': {weights.size} weights and {0 if bias is None else bias.size} "
                f"biases, expected {needed} and {num_biases} (or none)"
            )
        rest = np.zeros(num_biases, np.float32) if bias is None else bias.ravel()
        found = []
        for wide in counts:
            sides: list[list[Any]] = [[], [], [], []]
            for _ in range(directions):
                for kind, columns in enumerate((wide, size)):
                    count = len(gates) * size * columns
                    part, weights = weights[:count], weights[count:]
                    sides[kind].append(self._ordered(part.reshape(len(gates), size, columns)))
                for kind in (2, 3):
                    count = len(gates) * size
                    part, rest = rest[:count], rest[count:]
                    sides[kind].append(self._ordered(part.reshape(len(gates), size)))
            w, recurrent, b, recurrent_bias = (np.stack(side) for side in sides)
            found.append(RnnWeights(recurrent, w if wide else None, b, recurrent_bias))
        return found

    def _ordered(self, packed: Any) -> Any:
        """Gates in the order of `GATES`, their rows one below the other."""
        names = _PACKED[self.op]
        return np.concatenate([packed[names.index(gate)] for gate in GATES[self.op.value]])


def _stack(
    net: Network,
    layer: IRNNv2Layer | IRNNLayer,
    x: Tensor,
    weights: list[RnnWeights],
    states: list[Tensor | None],
    lengths: Tensor | None,
    *,
    is_batch_first: bool,
) -> RnnOutputs:
    is_both = layer.direction is RNNDirection.BIDIRECTION
    return net.add_rnn(
        x,
        layer.op.value,
        layer.hidden_size,
        weights,
        direction="bidirectional" if is_both else "forward",
        input_mode="skip" if layer.input_mode is RNNInputMode.SKIP else "linear",
        batch_first=is_batch_first,
        initial_hidden=states[0],
        initial_cell=states[1],
        lengths=lengths,
        name=layer.name,
    )
