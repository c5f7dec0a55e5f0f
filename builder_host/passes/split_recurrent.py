"""recurrent(x, W, R, b) -> one product x Wᵀ + b of all steps, then recurrent on its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builder_host.network.editing import insert_before, update_layer
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.recurrent import RecurrentParams, by_role
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.network import Layer, Network, Tensor


def run(network: Network) -> int:
    """Take the input projections out of recurrent layers, all directions in one product.

    What is left of the layer has nothing to do but what depends on the step before.

    Returns:
        Number of layers that were split.
    """
    split = 0
    for layer in list(network.layers):
        if layer.kind == "recurrent" and not layer.params.is_projected:
            _split(network, layer)
            split += 1
    return split


def _split(network: Network, layer: Layer) -> None:
    params: RecurrentParams = layer.params
    given = by_role(params, layer.own_inputs)
    steps, batch, features = given["x"].shape
    rows = params.num_directions * params.num_gates * params.hidden_size
    name = f"{layer.name}/input"
    x = _reshaped(network, layer, given["x"], (steps * batch, features), f"{name}.rows")
    weights = _reshaped(network, layer, given["weights"], (rows, features), f"{name}.weights")
    bias = _reshaped(network, layer, given["bias"], (rows,), f"{name}.bias")
    transposed = MatrixMultiplyParams(transpose_b=True)
    product = insert_before(network, layer, "matrix_multiply", transposed, [x, weights], name)
    total = product.output
    if bias.values is None or np.any(bias.values):
        added = insert_before(
            network, layer, "elementwise", ElementwiseParams("add"), [total, bias], f"{name}.sum"
        )
        total = added.output
    projected = _reshaped(network, layer, total, (steps, batch, rows), f"{name}.steps")
    kept = [given[role] for role in params.input_roles if role not in ("x", "weights", "bias")]
    update_layer(
        network, layer, params=replace(params, is_projected=True), inputs=[projected, *kept]
    )


def _reshaped(
    network: Network, layer: Layer, tensor: Tensor, shape: tuple[int, ...], name: str
) -> Tensor:
    if tensor.shape == shape:
        return tensor
    if tensor.values is not None:
        return network.add_constant(tensor.values.reshape(shape), name)
    return insert_before(network, layer, "reshape", ReshapeParams(shape), [tensor], name).output
