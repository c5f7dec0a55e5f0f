"""Loops, conditionals and recurrent layers of the network API against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from support.tensorrt_networks import close, constant, evaluated, floats, inputs_of, network_of

from builder_host import tensorrt as trt
from builder_host.errors import NetworkError


@pytest.fixture
def net(monkeypatch):
    return network_of(monkeypatch)[1]


def number(net, value):
    return constant(net, np.asarray(value, np.int32))


def add(net, a, b):
    return net.add_elementwise(a, b, trt.ElementWiseOperation.SUM).get_output(0)


def test_a_counted_loop_over_slices(net):
    """A running sum by hand: a recurrence, an iterator, the last value and all values."""
    x = floats(4, 3)
    [data] = inputs_of(net, x=x)
    loop = net.add_loop()
    loop.add_trip_limit(number(net, 4), trt.TripLimit.COUNT)
    row = loop.add_iterator(data, axis=0)
    total = loop.add_recurrence(constant(net, np.zeros(3, np.float32)))
    assert tuple(row.get_output(0).shape) == (3,)
    new = add(net, total.get_output(0), row.get_output(0))
    total.set_input(1, new)
    last = loop.add_loop_output(total.get_output(0), trt.LoopOutput.LAST_VALUE)
    sums = loop.add_loop_output(new, trt.LoopOutput.CONCATENATE, axis=0)
    backwards = loop.add_loop_output(new, trt.LoopOutput.REVERSE, axis=1)
    a, b, c = evaluated(net, *(y.get_output(0) for y in (last, sums, backwards)), x=x)
    close(a, x.sum(0), atol=1e-5)
    close(b, x.cumsum(0), atol=1e-5)
    close(c, x.cumsum(0)[::-1].T, atol=1e-5)


def test_a_loop_runs_while_its_condition_holds(net):
    """The value doubles while the counter, known while building, is below 5."""
    x = floats(2)
    [data] = inputs_of(net, x=x)
    loop = net.add_loop()
    counter, value = loop.add_recurrence(number(net, 0)), loop.add_recurrence(data)
    goes_on = net.add_elementwise(
        counter.get_output(0), number(net, 5), trt.ElementWiseOperation.LESS
    )
    loop.add_trip_limit(goes_on.get_output(0), trt.TripLimit.WHILE)
    counter.set_input(1, add(net, counter.get_output(0), number(net, 1)))
    value.set_input(1, add(net, value.get_output(0), value.get_output(0)))
    last = loop.add_loop_output(value.get_output(0), trt.LoopOutput.LAST_VALUE)
    close(evaluated(net, last.get_output(0), x=x), x * 32, atol=1e-4)


def test_a_loop_in_a_loop(net):
    """Three rounds, each of which adds every column of the data to the value."""
    x, start = floats(2, 5), floats(2)
    data, first = inputs_of(net, x=x, start=start)
    outer = net.add_loop()
    outer.add_trip_limit(number(net, 3), trt.TripLimit.COUNT)
    value = outer.add_recurrence(first)
    inner = net.add_loop()
    inner.add_trip_limit(number(net, 5), trt.TripLimit.COUNT)
    column = inner.add_iterator(data, axis=1, reverse=True)
    inside = inner.add_recurrence(value.get_output(0))
    inside.set_input(1, add(net, inside.get_output(0), column.get_output(0)))
    result = inner.add_loop_output(inside.get_output(0), trt.LoopOutput.LAST_VALUE)
    value.set_input(1, result.get_output(0))
    last = outer.add_loop_output(value.get_output(0), trt.LoopOutput.LAST_VALUE)
    close(evaluated(net, last.get_output(0), x=x, start=start), start + 3 * x.sum(1), atol=1e-5)


def test_loops_that_cannot_be_unrolled_are_refused(net):
    count, x = np.asarray(3, np.int32), floats(2)
    trips, data = inputs_of(net, count=count, x=x)
    loop = net.add_loop()
    value = loop.add_recurrence(data)
    value.set_input(1, add(net, value.get_output(0), data))
    outside = net.add_unary(value.get_output(0), trt.UnaryOperation.NEG)
    with pytest.raises(NetworkError, match="a loop needs add_trip_limit"):
        net.emit(None)
    limit = loop.add_trip_limit(trips, trt.TripLimit.COUNT)
    with pytest.raises(NetworkError, match=r"COUNT limit 'count' .* is not one value known"):
        net.emit(None)
    limit.set_input(0, number(net, 3))
    net.mark_output(outside.get_output(0))  # what depends on the body belongs to it
    with pytest.raises(NetworkError, match="inside a loop: pass it out with add_loop_output"):
        net.emit(None)
    net.unmark_output(outside.get_output(0))
    forever = net.add_loop()
    yes = constant(net, np.asarray(True))
    forever.add_trip_limit(yes, trt.TripLimit.WHILE)
    with pytest.raises(NetworkError, match="longer than 4,096 iterations"):
        net.emit(None)


def test_loops_inside_loops_are_bounded_together(net):
    x = floats(2)
    [data] = inputs_of(net, x=x)
    outer, inner = net.add_loop(), net.add_loop()
    value = outer.add_recurrence(data)
    outer.add_trip_limit(number(net, 4000), trt.TripLimit.COUNT)
    result = inner.add_recurrence(value.get_output(0))
    inner.add_trip_limit(number(net, 4000), trt.TripLimit.COUNT)
    result.set_input(1, add(net, result.get_output(0), data))
    done = inner.add_loop_output(result.get_output(0), trt.LoopOutput.LAST_VALUE)
    value.set_input(1, done.get_output(0))
    last = outer.add_loop_output(value.get_output(0), trt.LoopOutput.LAST_VALUE)
    net.mark_output(last.get_output(0))
    with pytest.raises(NetworkError, match="loops unroll to more than 50,000 layers"):
        net.emit(None)


def conditional(net, flag, data):
    branches = net.add_if_conditional()
    with pytest.raises(NetworkError, match="set_condition before add_output"):
        branches.add_output(data, data)
    branches.set_condition(flag)
    inside = branches.add_input(data).get_output(0)
    yes = net.add_unary(inside, trt.UnaryOperation.NEG).get_output(0)
    no = net.add_unary(inside, trt.UnaryOperation.ABS).get_output(0)
    return branches.add_output(yes, no).get_output(0)


@pytest.mark.parametrize("holds", [False, True])
def test_a_condition_known_while_building_chooses_a_branch(net, holds):
    x = floats(3)
    [data] = inputs_of(net, x=x)
    result = conditional(net, constant(net, np.asarray(holds)), data)
    close(evaluated(net, result, x=x), -x if holds else np.abs(x))


@pytest.mark.parametrize("holds", [False, True])
def test_a_condition_on_the_data_selects_a_result(net, holds):
    x, flag = floats(3), np.asarray(holds)
    data, choice = inputs_of(net, x=x, flag=flag)
    result = conditional(net, choice, data)
    close(evaluated(net, result, x=x, flag=flag), -x if holds else np.abs(x))


# --- recurrent layers ----------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_steps(x, weights, hidden, cell):
    """Outputs [S, N, H] of one LSTM layer; weights by gate: (W, R, bias of W, bias of R)."""
    outputs = []
    for step in x:
        gates = {
            name: step @ w.T + hidden @ r.T + wb + rb for name, (w, r, wb, rb) in weights.items()
        }
        cell = sigmoid(gates["FORGET"]) * cell + sigmoid(gates["INPUT"]) * np.tanh(gates["CELL"])
        hidden = sigmoid(gates["OUTPUT"]) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def gate_weights(features, size, names):
    return {
        name: (floats(size, features), floats(size, size), floats(size), floats(size))
        for name in names
    }


LSTM_GATES = ("INPUT", "OUTPUT", "FORGET", "CELL")


def test_rnn_v2_is_a_stack_of_lstms(net):
    """Two layers in both directions, with states given and asked for."""
    x, hidden, cell = floats(2, 4, 3), floats(2, 4, 5), floats(2, 4, 5)
    data, first, cells = inputs_of(net, x=x, h=hidden, c=cell)
    layer = net.add_rnn_v2(data, 2, 5, 4, trt.RNNOperation.LSTM)
    layer.direction = trt.RNNDirection.BIDIRECTION
    layer.hidden_state, layer.cell_state = first, cells
    sides = [gate_weights(3 if side < 2 else 10, 5, LSTM_GATES) for side in range(4)]
    for side, gates in enumerate(sides):
        for name, (w, r, wb, rb) in gates.items():
            gate = trt.RNNGateType[name]
            layer.set_weights_for_gate(side, gate, True, w)
            layer.set_weights_for_gate(side, gate, False, trt.Weights(r))
            layer.set_bias_for_gate(side, gate, True, wb)
            layer.set_bias_for_gate(side, gate, False, rb)
    with pytest.raises(NetworkError, match="LSTM has no gate RESET"):
        layer.set_bias_for_gate(0, trt.RNNGateType.RESET, True, floats(5))
    got = evaluated(net, *layer.outputs, x=x, h=hidden, c=cell)
    y, last_hidden, last_cell = x.astype(np.float64).transpose(1, 0, 2), [], []
    for number_ in range(2):
        parts = []
        for direction in range(2):
            side = 2 * number_ + direction
            steps = y[::-1] if direction else y
            out, h, c = lstm_steps(steps, sides[side], hidden[:, side], cell[:, side])
            parts.append(out[::-1] if direction else out)
            last_hidden.append(h)
            last_cell.append(c)
        y = np.concatenate(parts, 2)
    close(got[0], y.transpose(1, 0, 2), atol=1e-5)
    close(got[1], np.stack(last_hidden, 1), atol=1e-5)
    close(got[2], np.stack(last_cell, 1), atol=1e-5)


def test_rnn_v2_without_weights_says_which_are_missing(net):
    [data] = inputs_of(net, x=floats(1, 2, 3))
    layer = net.add_rnn_v2(data, 1, 4, 2, trt.RNNOperation.GRU)
    assert tuple(data.shape) == (1, 2, 3)  # asked for before the weights are there
    with pytest.raises(NetworkError, match="layer 0 has no recurrent weights for gate UPDATE"):
        layer.get_output(0).shape  # noqa: B018 - it raises


@pytest.mark.parametrize("is_implicit", [False, True])
def test_rnn_with_packed_weights(monkeypatch, is_implicit):
    """Weights f, i, c, o: all input matrices, then the recurrent ones, as the API packs them."""
    _, net = network_of(monkeypatch, batch=1 if is_implicit else None)
    x = floats(4, 2, 3)
    data = net.add_input("x", trt.float32, x.shape)
    layers = [gate_weights(3 if number_ == 0 else 5, 5, LSTM_GATES) for number_ in range(2)]
    order = ("FORGET", "INPUT", "CELL", "OUTPUT")
    weights = np.concatenate(
        [layer[gate][kind].ravel() for layer in layers for kind in (0, 1) for gate in order]
    )
    bias = np.concatenate(
        [layer[gate][kind] for layer in layers for kind in (2, 3) for gate in order]
    )
    layer = net.add_rnn(
        data, 2, 5, 4, trt.RNNOperation.LSTM, trt.RNNInputMode.LINEAR,
        trt.RNNDirection.UNIDIRECTION, trt.Weights(weights), bias,
    )  # fmt: skip
    fed = x[None] if is_implicit else x
    got = evaluated(net, *layer.outputs, batch=1 if is_implicit else None, x=fed)
    y, zero = x.astype(np.float64), np.zeros((2, 5))
    states = []
    for gates in layers:
        y, *last = lstm_steps(y, gates, zero, zero)
        states.append(last)
    wanted = [y, np.stack([h for h, _ in states]), np.stack([c for _, c in states])]
    for result, value in zip(got, wanted, strict=True):
        close(result.reshape(value.shape), value, atol=1e-5)
    layer.weights = weights[1:]
    with pytest.raises(NetworkError, match=r"weights and .* expected"):
        net.emit(1 if is_implicit else None)


def test_gru_multiplies_the_reset_gate_behind_the_product(net):
    x = floats(1, 3, 2)
    [data] = inputs_of(net, x=x)
    names = ("UPDATE", "RESET", "HIDDEN")
    gates = gate_weights(2, 4, names)
    layer = net.add_rnn_v2(data, 1, 4, 3, trt.RNNOperation.GRU)
    for name, (w, r, wb, rb) in gates.items():
        for is_w, weights, bias in ((True, w, wb), (False, r, rb)):
            layer.set_weights_for_gate(0, trt.RNNGateType[name], is_w, weights)
            layer.set_bias_for_gate(0, trt.RNNGateType[name], is_w, bias)
    assert layer.num_outputs == 2
    hidden, outputs = np.zeros(4), []
    for step in x[0].astype(np.float64):
        z, r = (
            sigmoid(w @ step + rec @ hidden + wb + rb)
            for w, rec, wb, rb in (gates["UPDATE"], gates["RESET"])
        )
        w, rec, wb, rb = gates["HIDDEN"]
        new = np.tanh(w @ step + wb + r * (rec @ hidden + rb))
        hidden = (1 - z) * new + z * hidden
        outputs.append(hidden)
    got = evaluated(net, *layer.outputs, x=x)
    close(got[0][0], np.stack(outputs), atol=1e-5)
    close(got[1][0, 0], hidden, atol=1e-5)
