"""convolutions of one input, alike but for their weights -> one convolution and slices."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from builder_host.network.editing import insert_before, update_layer
from builder_host.network.layers.slice import SliceParams
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.passes.channels import channel_axis, is_per_channel

CHANNEL_MULTIPLE = 16  # slices of blocked layouts then start at a block


def run(network: Network) -> int:
    """Merge what reads one tensor with one window and one epilogue expression.

    Every sibling has constant weights, a multiple of 16 maps and per-channel epilogue operands
    only. Siblings whose result goes straight into a concatenation or a network output stay: they
    write to their final place anyway, and a slice would have to be copied there.

    Returns:
        Number of convolutions that became slices.
    """
    consumers = network.consumers()
    groups: dict[Hashable, list[Layer]] = {}
    for layer in network.layers:
        if _is_candidate(network, layer, consumers.get(layer.output, [])):
            expr = layer.epilogue.expr if layer.epilogue else None
            key = (
                id(layer.inputs[0]),
                layer.params,
                layer.inputs[1].shape[1:],
                expr,
                len(layer.inputs),
            )
            groups.setdefault(key, []).append(layer)
    merged = 0
    for siblings in groups.values():
        if len(siblings) > 1:
            _merge(network, siblings)
            merged += len(siblings)
    return merged


def _is_candidate(network: Network, layer: Layer, readers: list[Layer]) -> bool:
    if layer.kind != "convolution" or layer.params.groups != 1 or layer.output.type.rank != 4:
        return False
    if layer.output.shape[1] % CHANNEL_MULTIPLE or len(layer.own_inputs) != 2:
        return False
    if not layer.inputs[0].dtype.is_float:
        return False
    if layer.output in network.outputs or any(y.kind == "concatenation" for y in readers):
        return False
    axis = channel_axis(layer)
    return layer.inputs[1].is_constant and all(
        t.is_constant
        and is_per_channel(t.shape, layer.output.shape, axis)
        and t.type.num_elems == layer.output.shape[axis]
        for t in layer.operands
    )


def _merge(network: Network, siblings: list[Layer]) -> None:
    first = siblings[0]
    name = " || ".join(y.name for y in siblings)
    origin = " || ".join(dict.fromkeys(y.origin for y in siblings if y.origin))
    constants: list[Tensor] = []
    for number in range(1, len(first.inputs)):
        parts = [np.asarray(y.inputs[number].values) for y in siblings]
        if number > 1:
            parts = [p.reshape(-1, 1, 1) for p in parts]
        joined = " || ".join(y.inputs[number].name for y in siblings)
        constants.append(network.add_constant(np.concatenate(parts), joined))
    epilogue = Epilogue(first.epilogue.expr, len(first.operands)) if first.epilogue else None
    merged = insert_before(
        network,
        first,
        "convolution",
        first.params,
        [first.inputs[0], *constants],
        name,
        epilogue=epilogue,
        origin=origin,
    )
    start = 0
    for layer in siblings:
        sizes = layer.output.shape
        params = SliceParams((0, start, 0, 0), sizes, (1, 1, 1, 1))
        layer.epilogue = None
        update_layer(network, layer, kind="slice", params=params, inputs=[merged.output])
        start += sizes[1]
