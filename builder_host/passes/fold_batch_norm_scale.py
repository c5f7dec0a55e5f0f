"""convolution -> x * scale + shift becomes a convolution with other weights and bias.

Also deconvolution and fully connected layers, and x * scale + shift before convolution or fully
connected where that is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import inputs_of
from builder_host.network.editing import bypass_layer, update_layer
from builder_host.network.evaluate import constant_value
from builder_host.network.network import Layer, Network, Tensor
from builder_host.passes.channels import channel_values
from builder_host.passes.expression_rewrite import affine_parts

Array = npt.NDArray[Any]

_KINDS = ("convolution", "deconvolution", "fully_connected")


def run(network: Network) -> int:
    """Fold until nothing changes; returns the number of pointwise layers removed."""
    folded = 0
    for layer in list(network.layers):
        if layer.kind in _KINDS and _has_constant_weights(layer):
            while _fold_into_producer(network, layer):
                folded += 1
            while layer.kind != "deconvolution" and _fold_into_consumer(network, layer):
                folded += 1
    return folded


def _has_constant_weights(layer: Layer) -> bool:
    return layer.epilogue is None and all(t.is_constant for t in layer.inputs[1:])


def _affine(layer: Layer, variable: Tensor) -> tuple[Array, Array] | None:
    """Per-channel (scale, shift) [channels] of a pointwise layer in `variable`, or None."""
    if layer.kind != "pointwise" or layer.epilogue is not None:
        return None
    if variable.type != layer.output.type or variable.type.rank < 2:
        return None
    index = layer.inputs.index(variable)
    others = [t for t in layer.inputs if t is not variable]
    if layer.inputs.count(variable) != 1 or not all(t.is_constant for t in others):
        return None
    if index not in inputs_of(layer.params.expr):
        return None
    parts = affine_parts(layer.params.expr, index)
    if parts is None:
        return None
    scale, shift = (channel_values(p, layer.inputs, variable.shape, 1) for p in parts)
    return None if scale is None or shift is None else (scale, shift)


def _fold_into_producer(network: Network, layer: Layer) -> bool:
    """Fold what follows the layer."""
    readers = network.readers_of(layer.output)
    if layer.output in network.outputs or len(readers) != 1:
        return False
    found = _affine(readers[0], layer.output)
    if found is None:
        return False
    scale, shift = found
    weights = constant_value(layer.inputs[1])
    bias = constant_value(layer.inputs[2]) if len(layer.inputs) > 2 else np.zeros(len(scale))
    if not _replace_weights(
        network, layer, weights * _per_map(layer, scale, weights.shape), bias * scale + shift
    ):
        return False
    if not bypass_layer(network, readers[0], layer.output):
        raise RuntimeError(f"layer '{readers[0].name}' could not be bypassed")
    return True


def _per_map(layer: Layer, values: Array, shape: tuple[int, ...]) -> Array:
    """Values [K] per output map, shaped to multiply the weights."""
    if layer.kind == "deconvolution":  # weights [C,K/G,*F], C group-major
        groups = layer.params.groups
        per_group = values.reshape(groups, 1, shape[1])
        rows = np.repeat(per_group, shape[0] // groups, axis=1).reshape(shape[0], shape[1])
        return rows.reshape(shape[0], shape[1], *(1,) * (len(shape) - 2))
    return values.reshape(-1, *(1,) * (len(shape) - 1))


def _fold_into_consumer(network: Network, layer: Layer) -> bool:
    """Fold what precedes the layer."""
    before = layer.inputs[0].producer
    if before is None or before.output in network.outputs or before.kind != "pointwise":
        return False
    if network.readers_of(before.output) != [layer]:
        return False
    variables = [t for t in before.inputs if not t.is_constant]
    if len(variables) != 1:
        return False
    found = _affine(before, variables[0])
    if found is None:
        return False
    scale, shift = found
    weights = constant_value(layer.inputs[1])
    shape = before.output.shape
    if layer.kind == "convolution":
        padded = any((*layer.params.pads_begin, *layer.params.pads_end))
        if padded and np.any(shift != 0):
            return False  # padding must stay zero behind the shift
        maps, channels = weights.shape[:2]
        groups = layer.params.groups
        wide = (maps, channels, *(1,) * (weights.ndim - 2))
        factors, terms = (
            np.repeat(v.reshape(groups, channels), maps // groups, axis=0).reshape(wide)
            for v in (scale, shift)
        )
    else:
        factors, terms = (
            np.broadcast_to(v.reshape(-1, *(1,) * (len(shape) - 2)), shape[1:]).reshape(1, -1)
            for v in (scale, shift)
        )
    bias = (weights * terms).reshape(len(weights), -1).sum(axis=1)
    if len(layer.inputs) > 2:
        bias = bias + constant_value(layer.inputs[2])
    if not _replace_weights(network, layer, weights * factors, bias, variables[0]):
        return False
    network.layers.remove(before)
    return True


def _replace_weights(
    network: Network, layer: Layer, weights: Array, bias: Array, source: Tensor | None = None
) -> bool:
    """Give a layer new weights, bias and input; False when they leave the range of the type."""
    dtype = np.asarray(layer.inputs[1].values).dtype
    with np.errstate(over="ignore"):
        stored = weights.astype(dtype), bias.astype(dtype)
    if not all(bool(np.isfinite(v).all()) for v in stored):
        return False
    names = f"{layer.inputs[1].name}.scaled", f"{layer.name}.bias"
    constants = [network.add_constant(v, n) for v, n in zip(stored, names, strict=True)]
    update_layer(network, layer, inputs=[source or layer.inputs[0], *constants])
    return True
