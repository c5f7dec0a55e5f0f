"""plugin with an expression -> pointwise(expression)."""

from __future__ import annotations

from builder_host.network.editing import update_layer
from builder_host.network.layers.plugin import plugin_expression
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Network


def run(network: Network) -> int:
    """Let plugins that are expressions fuse like built-in activations.

    Returns:
        Number of layers that changed.
    """
    changed = 0
    for layer in network.layers:
        if layer.kind != "plugin":
            continue
        expr = plugin_expression(layer.params, len(layer.own_inputs))
        if expr is not None:
            params = PointwiseParams(expr, layer.output.dtype)
            update_layer(network, layer, kind="pointwise", params=params, inputs=layer.inputs)
            changed += 1
    return changed
