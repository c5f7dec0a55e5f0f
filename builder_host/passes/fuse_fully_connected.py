"""matrix_multiply(x[N,V], constant) -> fully_connected."""

from __future__ import annotations

import numpy as np

from builder_host.network.editing import update_layer
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.network import Network
from builder_host.network.rules import EIGHT_BITS


def run(network: Network) -> int:
    """Turn products of a matrix with a constant one into fully connected layers.

    Returns:
        Number of layers that changed.
    """
    changed = 0
    for layer in network.layers:
        if layer.kind != "matrix_multiply" or layer.epilogue is not None:
            continue
        x, w = layer.inputs
        if w.values is None or x.is_constant or x.type.rank != 2 or w.type.rank != 2:
            continue
        if layer.params.transpose_a or not (x.dtype.is_float or x.dtype in EIGHT_BITS):
            continue
        weights = w
        if not layer.params.transpose_b:
            weights = network.add_constant(np.ascontiguousarray(w.values.T), f"{w.name}.transposed")
        update_layer(
            network, layer, kind="fully_connected", params=FullyConnectedParams(),
            inputs=[x, weights],
        )  # fmt: skip
        changed += 1
    return changed
