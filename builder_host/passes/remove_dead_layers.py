"""layer that reaches no network output -> nothing."""

from __future__ import annotations

from builder_host.network.network import Network


def run(network: Network) -> int:
    """Remove every layer whose outputs lead nowhere; returns how many. Inputs stay declared."""
    needed = set(network.outputs)
    kept = []
    for layer in reversed(network.layers):
        if any(t in needed for t in layer.outputs):
            needed.update(layer.inputs)
            kept.append(layer)
    removed = len(network.layers) - len(kept)
    network.layers = kept[::-1]
    return removed
