"""Edits of a network in place, as passes make them.

Every edit keeps names unique, layers in topological order and the names of network outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder_host.errors import NetworkError
from builder_host.network.network import Epilogue, Layer, Network, Tensor


def can_replace(network: Network, old: Tensor, new: Tensor) -> bool:
    """Whether `replace_tensor` is possible: a network output must be computed, and only once."""
    if old not in network.outputs:
        return True
    return new.producer is not None and new not in network.outputs


def replace_tensor(network: Network, old: Tensor, new: Tensor) -> None:
    """Let every reader of `old` read `new`; a network output keeps its name, now carried by `new`.

    Raises:
        NetworkError: types differ, or `old` is a network output that `new` cannot stand for.
    """
    if old.type != new.type:
        raise NetworkError(
            f"tensor '{old.name}' is {old.type}, '{new.name}' is {new.type}; they must agree"
        )
    if not can_replace(network, old, new):
        raise NetworkError(
            f"output '{old.name}' cannot be replaced by '{new.name}', which is an input, "
            "a constant or itself an output"
        )
    for name, holder in network.aliases.items():
        if holder is old:
            network.aliases[name] = new
    network.aliases[old.name] = new
    for layer in network.layers:
        if old in layer.inputs:
            layer.inputs = [new if t is old else t for t in layer.inputs]
    if old in network.outputs:
        network.outputs[network.outputs.index(old)] = new
        old.name, new.name = new.name, old.name


def remove_layer(network: Network, layer: Layer) -> None:
    """Take out a layer that nobody reads.

    Raises:
        NetworkError: an output of the layer is still read or is a network output.
    """
    for tensor in layer.outputs:
        readers = [other.name for other in network.layers if tensor in other.inputs]
        if readers or tensor in network.outputs:
            raise NetworkError(
                f"layer '{layer.name}' cannot be removed: '{tensor.name}' is read by "
                f"{', '.join(readers) or 'the network output'}"
            )
    network.layers.remove(layer)


def bypass_layer(network: Network, layer: Layer, replacement: Tensor) -> bool:
    """Replace a layer's one output by another tensor and remove the layer; False if impossible."""
    (output,) = layer.outputs
    if not can_replace(network, output, replacement):
        return False
    replace_tensor(network, output, replacement)
    remove_layer(network, layer)
    return True


def insert_before(
    network: Network,
    successor: Layer,
    kind: str,
    params: Any,
    inputs: Sequence[Tensor],
    name: str = "",
    *,
    epilogue: Epilogue | None = None,
    output_names: Sequence[str] = (),
    origin: str = "",
) -> Layer:
    """`Network.add_layer`, placed right before another layer."""
    layer = network.add_layer(
        kind,
        params,
        inputs,
        name,
        epilogue=epilogue,
        output_names=output_names,
        origin=origin or successor.origin,
    )
    network.layers.pop()
    network.layers.insert(network.layers.index(successor), layer)
    return layer


def move_before(network: Network, layer: Layer, successor: Layer) -> None:
    """Move a layer to right before another one."""
    network.layers.remove(layer)
    network.layers.insert(network.layers.index(successor), layer)


def update_layer(
    network: Network,
    layer: Layer,
    *,
    kind: str | None = None,
    params: Any = None,
    inputs: Sequence[Tensor] | None = None,
    epilogue: Epilogue | None = None,
) -> None:
    """Change a layer in place; what is not given stays. The output tensors stay the same.

    Raises:
        NetworkError: the inputs break the rules of the kind, or the output types change; the
            layer is then as it was.
    """
    before = (layer.kind, layer.params, layer.inputs, layer.epilogue)
    layer.kind = kind or layer.kind
    layer.params = layer.params if params is None else params
    layer.inputs = layer.inputs if inputs is None else list(inputs)
    layer.epilogue = layer.epilogue if epilogue is None else epilogue
    try:
        types = network.inferred_types(layer)
        if types != [t.type for t in layer.outputs]:
            raise NetworkError(
                f"layer '{layer.name}': outputs would change from "
                f"{', '.join(str(t.type) for t in layer.outputs)} to "
                f"{', '.join(map(str, types))}"
            )
    except NetworkError:
        layer.kind, layer.params, layer.inputs, layer.epilogue = before
        raise


# What a layer's types follow from: kind, parameters, epilogue, types of its tensors.
CheckedLayers = dict[Layer, tuple[object, ...]]


def check_network(network: Network, checked: CheckedLayers | None = None) -> None:
    """Check order, producers, names and types of a whole network.

    Args:
        network: any.
        checked: of earlier calls, brought up to date: types of a layer are inferred again only
            where something that they follow from has been replaced.

    Raises:
        NetworkError: what does not hold; after a pass this is a bug of the pass.
    """
    known = set(network.inputs)
    for layer in network.layers:
        for tensor in layer.inputs:
            if not tensor.is_constant and tensor not in known:
                raise NetworkError(
                    f"layer '{layer.name}' reads '{tensor.name}' before it is computed"
                )
        basis = _type_basis(layer)
        if checked is None or not _is_same(checked.get(layer, ()), basis):
            types = network.inferred_types(layer)
            if types != [t.type for t in layer.outputs]:
                raise NetworkError(f"layer '{layer.name}': output types are out of date")
            if checked is not None:
                checked[layer] = basis
        for tensor in layer.outputs:
            if tensor.producer is not layer:
                raise NetworkError(f"tensor '{tensor.name}' does not name its producer")
            known.add(tensor)
    for tensor in network.outputs:
        if tensor not in known and not tensor.is_constant:
            raise NetworkError(f"output '{tensor.name}' is not computed")
    names: set[str] = set()
    for tensor in network.tensors():
        if tensor.name in names:
            raise NetworkError(f"two tensors are named '{tensor.name}'")
        names.add(tensor.name)


def _type_basis(layer: Layer) -> tuple[object, ...]:
    inputs, outputs = (tuple(t.type for t in tensors) for tensors in (layer.inputs, layer.outputs))
    return (layer.kind, layer.params, layer.epilogue, len(inputs), *inputs, *outputs)


def _is_same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    """By identity: all of them are immutable."""
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))
