"""LSTM and RNN over time-major blobs, with a `cont` blob that says where sequences go on.

Caffe keeps the state of these layers from one forward pass to the next. A plan keeps nothing: the
state starts at zero, or comes in and goes out through the blobs of `expose_hidden`.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import numpy.typing as npt

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.recurrent import RecurrentParams
from builder_host.network.network import Tensor

TYPES = ("LSTM", "RNN")

_log = logging.getLogger(__name__)
_LSTM_GATES = (0, 2, 1, 3)  # Caffe's input, forget, output, candidate -> input, output, forget, ..

FloatArray = npt.NDArray[np.floating]


def convert(layer: CaffeLayer) -> None:
    """x[T,N,...], cont[T,N], optional static[N,...], states when exposed -> y[T,N,K], states."""
    param = layer.message.recurrent_param
    is_lstm = layer.message.type == "LSTM"
    hidden = param.num_output
    if hidden < 1:
        raise LayerProblem(f"num_output is {hidden}, must be at least 1")
    num_states = (2 if is_lstm else 1) if param.expose_hidden else 0
    layer.require_bottoms(2 + num_states, 3 + num_states)
    x, cont = layer.bottoms[:2]
    static = layer.bottoms[2] if len(layer.bottoms) == 3 + num_states else None
    states = layer.bottoms[len(layer.bottoms) - num_states :] if num_states else []
    _check_shapes(x, cont, static, states, hidden)
    steps, batch = x.shape[:2]
    features = math.prod(x.shape[2:])
    rows = hidden * (4 if is_lstm else 1)
    specs = [
        BlobSpec("input weights", (rows, features), "weights", features),
        BlobSpec("input bias", (rows,), "bias"),
    ]
    static_features = math.prod(static.shape[1:]) if static is not None else 0
    if static is not None:
        specs.append(
            BlobSpec("static weights", (rows, static_features), "weights", static_features)
        )
    # A gain of at most one from step to step keeps made-up weights from driving every gate to 1.
    specs.append(BlobSpec("recurrent weights", (rows, hidden), "weights", 4 * hidden))
    if not is_lstm:
        specs += [
            BlobSpec("output weights", (hidden, hidden), "weights", hidden),
            BlobSpec("output bias", (hidden,), "bias"),
        ]
    blobs = dict(zip((s.role for s in specs), layer.weights(specs), strict=True))
    if not param.expose_hidden:
        _log.info(
            "%s: the state is zero at the start of every inference, where Caffe goes on from the "
            "last; set expose_hidden to carry it",
            layer.origin,
        )
    flat = layer.reshaped(x, (steps, batch, features), "features")
    cell_inputs = [layer.constant(_gates(blobs["recurrent weights"], hidden)[None], "recurrent")]
    if static is None:
        first = [
            flat,
            layer.constant(_gates(blobs["input weights"], hidden)[None], "weights"),
            *cell_inputs,
            layer.constant(_gates(blobs["input bias"], hidden)[None], "bias"),
        ]
    else:
        first = [_projected(layer, flat, static, blobs, hidden), *cell_inputs]
    params = RecurrentParams(
        "lstm" if is_lstm else "rnn",
        hidden,
        is_projected=static is not None,
        has_hidden=bool(states),
        has_cell=is_lstm and bool(states),
        has_continuation=True,
    )
    state_inputs = [
        layer.reshaped(state, (1, batch, hidden), f"state{number}")
        for number, state in enumerate(states)
    ]
    inputs = [*first, *state_inputs, cont]
    made = layer.network.add_layer(
        "recurrent", params, inputs, f"{layer.name}/steps", origin=layer.origin
    )
    _take_output(layer, made.outputs[0], blobs, is_lstm=is_lstm)
    for number, state in enumerate(made.outputs[1:] if num_states else [], start=1):
        layer.alias(state, number)


def _check_shapes(
    x: Tensor, cont: Tensor, static: Tensor | None, states: list[Tensor], hidden: int
) -> None:
    if len(x.shape) < 2:
        raise LayerProblem(f"the bottom {shape_text(x)} has no time and batch dimensions")
    steps, batch = x.shape[:2]
    if cont.shape != (steps, batch):
        raise LayerProblem(
            f"the second bottom (cont) is {shape_text(cont)}, must be {steps}x{batch} as the first"
        )
    if static is not None and static.shape[:1] != (batch,):
        raise LayerProblem(
            f"the static bottom is {shape_text(static)}, its first dimension must be {batch}"
        )
    for state in states:
        if state.shape not in ((1, batch, hidden), (batch, hidden)):
            raise LayerProblem(
                f"the bottom '{state.name}' (state) is {shape_text(state)}, "
                f"must be 1x{batch}x{hidden}"
            )


def _gates(values: FloatArray, hidden: int) -> FloatArray:
    """Rows of an LSTM in the order of this network's gates; those of an RNN as they are."""
    if values.shape[0] == hidden:
        return values
    parts = values.reshape(4, hidden, *values.shape[1:])
    return np.ascontiguousarray(parts[list(_LSTM_GATES)]).reshape(values.shape)


def _projected(
    layer: CaffeLayer,
    x: Tensor,
    static: Tensor,
    blobs: dict[str, FloatArray],
    hidden: int,
) -> Tensor:
    """W x + b of all steps, and the static bottom's product added to each of them."""
    steps, batch, features = x.shape
    weights = layer.constant(_gates(blobs["input weights"], hidden), "weights")
    bias = layer.constant(_gates(blobs["input bias"], hidden), "bias")
    rows = layer.reshaped(x, (steps * batch, features), "rows")
    product = layer.add("fully_connected", FullyConnectedParams(), [rows, weights, bias], "input")
    static_weights = layer.constant(_gates(blobs["static weights"], hidden), "static_weights")
    added = layer.add("fully_connected", FullyConnectedParams(), [static, static_weights], "static")
    by_step = layer.reshaped(product, (steps, batch, weights.shape[0]), "by_step")
    return layer.add("elementwise", ElementwiseParams("add"), [by_step, added], "inputs")


def _take_output(
    layer: CaffeLayer, y: Tensor, blobs: dict[str, FloatArray], *, is_lstm: bool
) -> None:
    """The LSTM's state is its output; an RNN's passes through one more product and tanh."""
    if is_lstm:
        layer.alias(y)
        return
    steps, batch, hidden = y.shape
    weights = layer.constant(blobs["output weights"], "output_weights")
    bias = layer.constant(blobs["output bias"], "output_bias")
    rows = layer.reshaped(y, (steps * batch, hidden), "output_rows")
    product = layer.add("fully_connected", FullyConnectedParams(), [rows, weights, bias], "output")
    by_step = layer.reshaped(product, (steps, batch, hidden), "output_steps")
    layer.emit("activation", ActivationParams("tanh"), [by_step])
