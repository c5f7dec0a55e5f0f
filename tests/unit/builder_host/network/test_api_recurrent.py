"""`add_rnn` against stacks written out with the cell's formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from builder_host.errors import NetworkError
from builder_host.network.api_recurrent import RnnWeights, stack_gates
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from planformat.datatypes import DataType

RANDOM = np.random.default_rng(2)
BATCH, STEPS, FEATURES, HIDDEN = 2, 4, 3, 5
X = RANDOM.standard_normal((BATCH, STEPS, FEATURES)).astype(np.float32)
LENGTHS = np.asarray([4, 2], np.int32)


def uniform(*shape):
    return RANDOM.uniform(-0.7, 0.7, shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_row(x, w, r, b, h, c, length, *, is_reversed):
    """One item [S,E] through one direction; gates in the order input, output, forget, cell."""
    rows = np.zeros((len(x), len(h)))
    for t in reversed(range(length)) if is_reversed else range(length):
        i, o, f, g = np.split(w @ x[t] + r @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        rows[t] = h
    return rows, h, c


def test_bidirectional_stack_with_states_and_lengths():
    layers, widths = [], [FEATURES, 2 * HIDDEN]
    for width in widths:
        layers.append(
            RnnWeights(
                uniform(2, 4 * HIDDEN, HIDDEN),
                uniform(2, 4 * HIDDEN, width),
                uniform(2, 4 * HIDDEN),
                uniform(2, 4 * HIDDEN),
            )
        )
    hidden, cell = uniform(4, BATCH, HIDDEN), uniform(4, BATCH, HIDDEN)
    network = Network()
    x = network.add_input("x", X.shape)
    lengths = network.add_input("lengths", (BATCH,), DataType.INT32)
    outputs = network.add_rnn(
        x, "lstm", HIDDEN, layers, direction="bidirectional", lengths=lengths,
        initial_hidden=hidden, initial_cell=cell,
    )  # fmt: skip
    assert outputs.cell is not None
    for tensor in (outputs.output, outputs.hidden, outputs.cell):
        network.mark_output(tensor)
    results = list(evaluate_network(network, {"x": X, "lengths": LENGTHS}).values())
    below = X.astype(np.float64)
    last_hidden, last_cell = np.zeros((4, BATCH, HIDDEN)), np.zeros((4, BATCH, HIDDEN))
    for number, layer in enumerate(layers):
        sides = []
        for d in range(2):
            rows = np.zeros((BATCH, STEPS, HIDDEN))
            for n in range(BATCH):
                row = 2 * number + d
                bias = layer.bias[d].astype(np.float64) + layer.recurrent_bias[d]
                rows[n], last_hidden[row, n], last_cell[row, n] = lstm_row(
                    below[n], layer.weights[d].astype(np.float64), layer.recurrent[d], bias,
                    hidden[row, n], cell[row, n], LENGTHS[n], is_reversed=d == 1,
                )  # fmt: skip
            sides.append(rows)
        below = np.concatenate(sides, axis=-1)
    for actual, expected in zip(results, (below, last_hidden, last_cell), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_skipping_input_is_added_to_every_gate():
    x = uniform(1, STEPS, HIDDEN)
    layer = RnnWeights(uniform(1, 3 * HIDDEN, HIDDEN), None, uniform(1, 3 * HIDDEN))
    inner = uniform(1, 3 * HIDDEN)
    layer = RnnWeights(layer.recurrent, None, layer.bias, inner)
    network = Network()
    outputs = network.add_rnn(
        network.add_input("x", x.shape), "gru", HIDDEN, [layer], input_mode="skip"
    )
    network.mark_output(outputs.output)
    (y,) = evaluate_network(network, {"x": x}).values()
    h = np.zeros(HIDDEN)
    for t in range(STEPS):
        z_in, r_in, n_in = np.split(np.tile(x[0, t].astype(np.float64), 3) + layer.bias[0], 3)
        z_h, r_h, n_h = np.split(layer.recurrent[0] @ h + inner[0], 3)
        update, reset = sigmoid(z_in + z_h), sigmoid(r_in + r_h)
        h = (1 - update) * np.tanh(n_in + reset * n_h) + update * h
        np.testing.assert_allclose(y[0, t], h, atol=1e-6)


@pytest.mark.parametrize("cell", ["relu", "tanh"])
def test_plain_cells_time_first(cell):
    layer = RnnWeights(uniform(1, HIDDEN, HIDDEN), uniform(1, HIDDEN, FEATURES))
    network = Network()
    x = network.add_input("x", (STEPS, BATCH, FEATURES))
    outputs = network.add_rnn(x, cell, HIDDEN, [layer], batch_first=False)
    assert outputs.cell is None
    network.mark_output(outputs.output)
    (y,) = evaluate_network(network, {"x": X.swapaxes(0, 1)}).values()
    h = np.zeros((BATCH, HIDDEN))
    for t in range(STEPS):
        h = X[:, t].astype(np.float64) @ layer.weights[0].T + h @ layer.recurrent[0].T
        h = np.maximum(h, 0) if cell == "relu" else np.tanh(h)
        np.testing.assert_allclose(y[t], h, atol=1e-6)


def test_gates_are_joined_by_name():
    parts = {name: np.full((2, 3), i) for i, name in enumerate(("cell", "forget", "input"))}
    with pytest.raises(NetworkError, match="gates input, output, forget, cell; given were cell"):
        stack_gates("lstm", parts)
    joined = stack_gates("lstm", {**parts, "output": np.full((2, 3), 9)})
    assert joined[::2, 0].tolist() == [2, 9, 1, 0]


def test_errors_say_both_sides():
    network = Network()
    x = network.add_input("x", X.shape)
    layer = RnnWeights(uniform(1, 4 * HIDDEN, HIDDEN), uniform(1, 4 * HIDDEN, FEATURES))
    with pytest.raises(NetworkError, match="weights are given, but this layer adds its input"):
        network.add_rnn(x, "lstm", HIDDEN, [layer], input_mode="skip")
    with pytest.raises(
        NetworkError, match=r"initial hidden has shape \(2, 2, 5\), expected \(1, N"
    ):
        network.add_rnn(x, "lstm", HIDDEN, [layer], initial_hidden=uniform(2, BATCH, HIDDEN))
    with pytest.raises(NetworkError, match=r"has 100 elements, \(1, 24, 6\) needs 144"):
        network.add_rnn(x, "lstm", HIDDEN + 1, [layer])
    with pytest.raises(NetworkError, match="at least one layer"):
        network.add_rnn(x, "lstm", HIDDEN, [])
