"""A copy of a network that shares constants but no layer or tensor with the original."""

from __future__ import annotations

from builder_host.network.network import Layer, Network, Tensor


def copy_network(network: Network) -> Network:
    """Copy layers and tensors; the (read-only) values of constants are shared.

    Written as a loop: deep networks would exceed the recursion limit of `copy.deepcopy`.
    """
    result = Network(network.name)
    copies: dict[Tensor, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if tensor not in copies:
            result.unique_name(tensor.name)
            copies[tensor] = Tensor(tensor.name, tensor.type, tensor.values)
        return copies[tensor]

    result.inputs = [copied(t) for t in network.inputs]
    for layer in network.layers:
        twin = Layer(
            layer.kind,
            layer.name,
            layer.params,
            [copied(t) for t in layer.inputs],
            [copied(t) for t in layer.outputs],
            layer.epilogue,
            layer.origin,
        )
        for tensor in twin.outputs:
            tensor.producer = twin
        result.unique_name(layer.name)
        result.layers.append(twin)
    result.outputs = [copied(t) for t in network.outputs]
    result.aliases = {
        name: copies[holder] for name, holder in network.aliases.items() if holder in copies
    }
    return result
