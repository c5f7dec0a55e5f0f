"""Layers in the order of their depth, so that independent ones stand beside each other.

On GPUs neighbours that do not need each other run side by side (early_start.py). Branch after
branch, as networks are written down, every second layer would wait for the one ahead of it.
"""

from __future__ import annotations

from builder_host.network.network import Layer, Network, Tensor

_FREE = ("concatenation", "reshape", "slice")  # mostly views: no step of their own


def run(network: Network) -> int:
    """Sort layers by the number of steps that must come before them; equal ones keep their order.

    The order stays as it is when more bytes of activations would be alive at once.

    Returns:
        Number of layers that moved.
    """
    depths: dict[Layer, int] = {}
    for layer in network.layers:
        producers = [t.producer for t in layer.inputs if t.producer is not None]
        before = max((depths[p] + (p.kind not in _FREE) for p in producers), default=0)
        depths[layer] = before
    ordered = sorted(network.layers, key=lambda layer: depths[layer])
    if peak_bytes(network, ordered) > peak_bytes(network, network.layers):
        return 0
    moved = sum(a is not b for a, b in zip(network.layers, ordered, strict=True))
    network.layers[:] = ordered
    return moved


def peak_bytes(network: Network, layers: list[Layer]) -> int:
    """Most bytes of computed tensors alive at one layer; views share the bytes of their source."""
    last_use: dict[Tensor, int] = {}
    for index, layer in enumerate(layers):
        for tensor in layer.inputs:
            last_use[tensor] = index
    for tensor in network.outputs:
        last_use[tensor] = len(layers)
    changes = [0] * (len(layers) + 2)
    for index, layer in enumerate(layers):
        for tensor in layer.outputs:
            size = tensor.type.num_elems * tensor.dtype.size_bytes
            changes[index] += size
            changes[last_use.get(tensor, index) + 1] -= size
    alive = peak = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak
