"""LSTM, GRU and RNN: one recurrent layer each, time first inside whatever `layout` says."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.recurrent import DEFAULT_ACTIVATIONS, RecurrentParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

# Function of layers.activation and how many of alpha, beta the operator of that name takes.
_FUNCTIONS: dict[str, tuple[str, int]] = {
    "affine": ("affine", 2),
    "elu": ("elu", 1),
    "hardsigmoid": ("hard_sigmoid", 2),
    "leakyrelu": ("leaky_relu", 1),
    "relu": ("relu", 0),
    "scaledtanh": ("scaled_tanh", 2),
    "sigmoid": ("sigmoid", 0),
    "softplus": ("softplus", 0),
    "softsign": ("softsign", 0),
    "tanh": ("tanh", 0),
    "thresholdedrelu": ("thresholded_relu", 1),
}


@operator("LSTM", since=(1, 7, 14, 22))
def lstm(node: Node) -> list[Tensor]:
    """Y, Y_h, Y_c; peepholes and coupled gates included."""
    return _recurrent(node, "lstm")


@operator("GRU", since=(1, 3, 7, 14, 22))
def gru(node: Node) -> list[Tensor]:
    """Y, Y_h."""
    return _recurrent(node, "gru")


@operator("RNN", since=(1, 7, 14, 22))
def rnn(node: Node) -> list[Tensor]:
    """Y, Y_h."""
    return _recurrent(node, "rnn")


def _recurrent(node: Node, cell: Literal["lstm", "gru", "rnn"]) -> list[Tensor]:
    node.skip_attrs("output_sequence")  # version 1; which outputs are read says the same
    is_batch_first = node.attr_int("layout", 0) == 1
    x, weights, recurrent = node.input(0), node.input(1), node.input(2)
    if x.type.rank != 3 or recurrent.type.rank != 3:
        node.fail(f"X {x.type} and R {recurrent.type} must have three dimensions")
    if is_batch_first:
        x = node.transpose(x, (1, 0, 2))
    hidden = node.attr_int("hidden_size", recurrent.shape[2])
    directions = ("forward", "reverse", "bidirectional")
    direction = node.choice("direction", "forward", directions)
    clip = node.attr_float("clip", 0.0)
    optional = {
        "hidden": _state(node, 5, is_batch_first),
        "cell": _state(node, 6, is_batch_first) if cell == "lstm" else None,
        "lengths": _lengths(node, x.shape[0]),
        "peepholes": node.optional(7) if cell == "lstm" else None,
    }
    params = RecurrentParams(
        cell,
        hidden,
        direction,  # type: ignore[arg-type]  # one of three texts, checked by `choice`
        clip=clip if clip else None,
        couples_input_forget=cell == "lstm" and node.attr_int("input_forget", 0) != 0,
        linear_before_reset=cell == "gru" and node.attr_int("linear_before_reset", 0) != 0,
        has_peepholes=optional["peepholes"] is not None,
        has_hidden=optional["hidden"] is not None,
        has_cell=optional["cell"] is not None,
        has_lengths=optional["lengths"] is not None,
    )
    params = _with_activations(node, params)
    bias, recurrent_bias = _biases(node, params, x.dtype)
    by_role: dict[str, Tensor | None] = {
        "x": x, "weights": weights, "recurrent": recurrent, "bias": bias,
        "recurrent_bias": recurrent_bias, **optional,
    }  # fmt: skip
    inputs = [tensor for role in params.input_roles if (tensor := by_role[role]) is not None]
    y, *states = node.add_outputs("recurrent", params, inputs)
    steps, batch, _ = x.shape
    y = node.reshape(y, (steps, batch, params.num_directions, hidden))
    if is_batch_first:
        return [node.transpose(y, (1, 0, 2, 3)), *(node.transpose(s, (1, 0, 2)) for s in states)]
    return [node.transpose(y, (0, 2, 1, 3)), *states]


def _state(node: Node, number: int, is_batch_first: bool) -> Tensor | None:
    """An initial state with directions first; None where it is left out or known to be zero."""
    state = node.optional(number)
    if state is None or (state.values is not None and not np.any(state.values)):
        return None
    return node.transpose(state, (1, 0, 2)) if is_batch_first else state


def _lengths(node: Node, steps: int) -> Tensor | None:
    """Lengths as INT32; None where all steps of all items are known to count."""
    lengths = node.optional(4)
    if lengths is None:
        return None
    if lengths.values is not None:
        if np.all(lengths.values == steps):
            return None
        if lengths.values.min() < 0 or lengths.values.max() > steps:
            node.fail(f"sequence_lens {lengths.values.tolist()} leave 0..{steps}")
    return node.cast(lengths, DataType.INT32)


def _biases(node: Node, params: RecurrentParams, dtype: DataType) -> tuple[Tensor, Tensor | None]:
    """Wb + Rb, and apart from it what a GRU adds inside the product with its reset gate."""
    directions, hidden = params.num_directions, params.hidden_size
    rows = params.num_gates * hidden
    both = node.optional(3)
    if both is None:
        both = node.const(np.zeros((directions, 2 * rows)), dtype)
    if both.shape != (directions, 2 * rows):
        node.fail(f"B has shape {both.shape}, expected {(directions, 2 * rows)}")
    steps = (1, 1)
    input_bias = node.slice(both, (0, 0), (directions, rows), steps)
    bias = node.slice(both, (0, rows), (directions, rows), steps)
    if not params.is_lbr_gru:
        return node.binary("add", input_bias, bias), None
    recurrent_bias = node.slice(bias, (0, 2 * hidden), (directions, hidden), steps)
    is_outside = node.const(np.repeat([1.0, 1.0, 0.0], hidden), dtype)
    outside = node.binary("mul", bias, is_outside)
    return node.binary("add", input_bias, outside), recurrent_bias


def _with_activations(node: Node, params: RecurrentParams) -> RecurrentParams:
    """`activations` with their coefficients, which go to the functions that take some, in order."""
    found = node.attr_texts("activations")
    alphas = list(node.attr_floats("activation_alpha") or ())
    betas = list(node.attr_floats("activation_beta") or ())
    if found is None:
        if alphas or betas:
            node.fail("activation_alpha or activation_beta without activations")
        return params
    wanted = len(DEFAULT_ACTIVATIONS[params.cell]) * params.num_directions
    if len(found) != wanted:
        node.fail(f"activations has {len(found)} names, {node.op_type} needs {wanted}")
    chosen = []
    for name in found:
        if name.lower() not in _FUNCTIONS:
            known = ", ".join(sorted(_FUNCTIONS))
            node.fail(f"activation '{name}' is not supported; one of: {known} (any case)")
        function, num_coefficients = _FUNCTIONS[name.lower()]
        chosen.append(
            ActivationParams(
                function,
                alphas.pop(0) if num_coefficients >= 1 and alphas else None,
                betas.pop(0) if num_coefficients >= 2 and betas else None,
            )
        )
    if tuple(chosen) == DEFAULT_ACTIVATIONS[params.cell] * params.num_directions:
        return params
    return replace(params, activations=tuple(chosen))
