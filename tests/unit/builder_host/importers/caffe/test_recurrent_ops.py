"""Embed, LSTM, RNN and LSTMUnit against BVLC's unrolled nets written out in numpy, in float64."""

import numpy as np
import pytest
from support.caffe_models import import_text, run_layer, with_inputs

from builder_host.errors import ImportModelError

RNG = np.random.default_rng(3)
STEPS, BATCH, FEATURES, HIDDEN, STATIC = 5, 3, 4, 6, 7
X = RNG.standard_normal((STEPS, BATCH, FEATURES)).astype(np.float32)
CONT = np.asarray([[0, 0, 0], [1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]], np.float32)
STATIC_X = RNG.standard_normal((BATCH, STATIC)).astype(np.float32)


def blob(*shape):
    return RNG.uniform(-0.8, 0.8, shape).astype(np.float32)


LSTM_BLOBS = [blob(4 * HIDDEN, FEATURES), blob(4 * HIDDEN), blob(4 * HIDDEN, HIDDEN)]
LSTM_STATIC = blob(4 * HIDDEN, STATIC)
RNN_BLOBS = [
    blob(HIDDEN, FEATURES),
    blob(HIDDEN),
    blob(HIDDEN, HIDDEN),
    blob(HIDDEN, HIDDEN),
    blob(HIDDEN),
]
RNN_STATIC = blob(HIDDEN, STATIC)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(cell, gates, cont):
    """LSTMUnit: gates i, f, o, g."""
    i, f, o, g = np.split(gates, 4, axis=-1)
    cell = cont[..., None] * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return cell, sigmoid(o) * np.tanh(cell)


def unrolled_lstm(inputs, hidden, cell, recurrent):
    rows = []
    for gates, cont in zip(inputs, CONT.astype(np.float64), strict=True):
        gates = gates + (cont[:, None] * hidden) @ recurrent.T
        cell, hidden = unit(cell, gates, cont)
        rows.append(hidden)
    return np.stack(rows), hidden, cell


def close(actual, expected):
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_lstm_follows_cont(tmp_path):
    weights, bias, recurrent = (b.astype(np.float64) for b in LSTM_BLOBS)
    body = f'type: "LSTM" recurrent_param {{ num_output: {HIDDEN} }}'
    (y,) = run_layer(tmp_path, body, {"x": X, "cont": CONT}, LSTM_BLOBS)
    zero = np.zeros((BATCH, HIDDEN))
    close(y, unrolled_lstm(X @ weights.T + bias, zero, zero, recurrent)[0])


def test_lstm_with_static_input_and_exposed_state(tmp_path):
    weights, bias, recurrent = (b.astype(np.float64) for b in LSTM_BLOBS)
    hidden, cell = blob(1, BATCH, HIDDEN), blob(1, BATCH, HIDDEN)
    body = f'type: "LSTM" recurrent_param {{ num_output: {HIDDEN} expose_hidden: true }}'
    inputs = {"x": X, "cont": CONT, "static": STATIC_X, "h0": hidden, "c0": cell}
    blobs = [LSTM_BLOBS[0], LSTM_BLOBS[1], LSTM_STATIC, LSTM_BLOBS[2]]
    y, last_hidden, last_cell = run_layer(tmp_path, body, inputs, blobs, ("y", "hT", "cT"))
    gates = X @ weights.T + bias + STATIC_X.astype(np.float64) @ LSTM_STATIC.T
    expected = unrolled_lstm(
        gates, hidden[0].astype(np.float64), cell[0].astype(np.float64), recurrent
    )
    close(y, expected[0])
    close(last_hidden[0], expected[1])
    close(last_cell[0], expected[2])


@pytest.mark.parametrize("is_static", [False, True], ids=["plain", "static"])
def test_rnn_has_an_output_product(is_static, tmp_path):
    weights, bias, recurrent, out, out_bias = (b.astype(np.float64) for b in RNN_BLOBS)
    inputs, blobs = {"x": X, "cont": CONT}, list(RNN_BLOBS)
    projected = X @ weights.T + bias
    if is_static:
        inputs["static"] = STATIC_X
        blobs.insert(2, RNN_STATIC)
        projected = projected + STATIC_X.astype(np.float64) @ RNN_STATIC.T
    body = f'type: "RNN" recurrent_param {{ num_output: {HIDDEN} }}'
    (y,) = run_layer(tmp_path, body, inputs, blobs)
    hidden, rows = np.zeros((BATCH, HIDDEN)), []
    for row, cont in zip(projected, CONT, strict=True):
        hidden = np.tanh(row + (cont[:, None] * hidden) @ recurrent.T)
        rows.append(np.tanh(hidden @ out.T + out_bias))
    close(y, np.stack(rows))


def test_lstm_unit(tmp_path):
    cell = RNG.standard_normal((1, BATCH, HIDDEN)).astype(np.float32)
    gates = RNG.standard_normal((1, BATCH, 4 * HIDDEN)).astype(np.float32)
    cont = np.asarray([[1, 0, 1]], np.float32)
    inputs = {"c": cell, "g": gates, "cont": cont}
    new_cell, hidden = run_layer(tmp_path, 'type: "LSTMUnit"', inputs, None, ("cn", "hn"))
    expected = unit(cell.astype(np.float64), gates.astype(np.float64), cont)
    close(new_cell, expected[0])
    close(hidden, expected[1])


@pytest.mark.parametrize("has_bias", [False, True])
def test_embed_cuts_numbers_to_integers(has_bias, tmp_path):
    table, bias = blob(9, 5), blob(5)
    numbers = np.asarray([[0, 8, 3.9], [1, 2, 7]], np.float32)
    term = "true" if has_bias else "false"
    body = f'type: "Embed" embed_param {{ num_output: 5 input_dim: 9 bias_term: {term} }}'
    (y,) = run_layer(tmp_path, body, {"x": numbers}, [table, bias] if has_bias else [table])
    expected = table[numbers.astype(int)].astype(np.float64)
    close(y, expected + (bias if has_bias else 0))


def test_blobs_are_told_from_their_shapes(tmp_path):
    text = with_inputs(
        {"x": X.shape, "cont": (STEPS, BATCH + 1)},
        'layer { name: "t" type: "LSTM" bottom: "x" bottom: "cont" top: "y" '
        f"recurrent_param {{ num_output: {HIDDEN} }} }}\n",
    )
    with pytest.raises(ImportModelError, match=r"second bottom \(cont\) is 5x4, must be 5x3"):
        import_text(tmp_path, text)
    wrong = [LSTM_BLOBS[0], LSTM_BLOBS[1], LSTM_BLOBS[2][:, :-1]]
    with pytest.raises(ImportModelError, match=r"blob 2 \(recurrent weights\) of shape 24x5"):
        import_text(tmp_path, text, {"t": wrong}, shapes={"cont": CONT.shape})
