"""reshape -> transpose -> reshape -> slice that only picks channels -> one slice or gather."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network import layers as kinds
from builder_host.network.editing import update_layer
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.network import Layer, Network, Tensor
from builder_host.passes import remove_dead_layers

Array = npt.NDArray[Any]

_MOVES = frozenset({"reshape", "transpose", "slice"})
_MAX_ELEMS = 1 << 24  # larger tensors are left alone: their index arrays would be too


def run(network: Network) -> int:
    """Replace channel shuffles, written as chains of moves, by one layer on the image itself.

    Blocked layouts can then stay: the chain in between has other ranks.

    Returns:
        Number of chains replaced.
    """
    replaced = 0
    for layer in reversed(network.layers[:]):
        found = _picked_channels(layer)
        if found is None:
            continue
        source, channels = found
        step = int(channels[1] - channels[0]) if len(channels) > 1 else 1
        if np.array_equal(channels, channels[0] + step * np.arange(len(channels))):
            params = SliceParams((0, int(channels[0]), 0, 0), layer.output.shape, (1, step, 1, 1))
            update_layer(network, layer, kind="slice", params=params, inputs=[source])
        else:
            indices = network.add_constant(channels, f"{layer.name}.channels")
            update_layer(
                network, layer, kind="gather", params=GatherParams(1), inputs=[source, indices]
            )
        replaced += 1
    if replaced:
        remove_dead_layers.run(network)
    return replaced


def _picked_channels(layer: Layer) -> tuple[Tensor, Array] | None:
    """The farthest image and the channels of it that a chain ending in `layer` picks, or None."""
    if layer.kind not in _MOVES or layer.output.type.rank != 4 or 0 in layer.output.shape:
        return None
    chain: list[Layer] = []
    tensor, best = layer.output, None
    while tensor.producer is not None and tensor.producer.kind in _MOVES:
        chain.append(tensor.producer)
        tensor = tensor.producer.inputs[0]
        if tensor.is_constant or tensor.type.num_elems > _MAX_ELEMS:
            break
        is_shuffle = any(y.kind == "transpose" for y in chain)
        if is_shuffle and _is_same_image(tensor.shape, layer.output.shape):
            channels = _channels(tensor.shape, chain[::-1])
            best = best if channels is None else (tensor, channels)
    return best


def _is_same_image(source: tuple[int, ...], result: tuple[int, ...]) -> bool:
    return len(source) == 4 and source[0] == result[0] and source[2:] == result[2:]


def _channels(shape: tuple[int, ...], chain: list[Layer]) -> Array | None:
    """Channels that a chain picks from a tensor of `shape`, found by moving element numbers."""
    numbers: Array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    moved = numbers
    for layer in chain:
        (moved,) = kinds.definition(layer.kind).reference(layer.params, [moved])
    channels = np.asarray(moved[0, :, 0, 0] // (shape[2] * shape[3]))
    if int(channels.max()) >= shape[1]:
        return None
    return channels if np.array_equal(moved, numbers[:, channels]) else None
