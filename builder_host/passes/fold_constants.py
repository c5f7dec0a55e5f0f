"""layer(constants) -> constant."""

from __future__ import annotations

import numpy as np

from builder_host.network.editing import remove_layer, replace_tensor
from builder_host.network.evaluate import constant_value, evaluate_layer
from builder_host.network.network import DTYPE_OF_NUMPY, Layer, Network
from planformat.datatypes import DataType

MAX_EXPANSION_BYTES = 64 << 20
_OPAQUE = frozenset({"plugin"})  # kinds that may have no reference
_SHAPE_ONLY = frozenset({"priorbox"})  # kinds whose result depends on input shapes alone
_NUMPY_NAME = {dtype: name for name, dtype in DTYPE_OF_NUMPY.items()}


def run(network: Network) -> int:
    """Evaluate layers on constants in float64, then round once to the tensor's type.

    A result over 64 MiB that is larger than what it is made of stays a layer, as does one that is
    a network output.

    Returns:
        Number of layers folded.
    """
    folded = 0
    for layer in list(network.layers):
        if not _is_foldable(network, layer):
            continue
        inputs = [
            constant_value(t) if t.is_constant else np.broadcast_to(0.0, t.shape)
            for t in layer.inputs
        ]
        for tensor, value in zip(layer.outputs, evaluate_layer(layer, inputs), strict=True):
            with np.errstate(over="ignore"):  # a float64 beyond the type's range becomes inf
                stored = value.astype(_NUMPY_NAME[tensor.dtype])
            replace_tensor(network, tensor, network.add_constant(stored, f"{tensor.name}.folded"))
        remove_layer(network, layer)
        folded += 1
    return folded


def _is_foldable(network: Network, layer: Layer) -> bool:
    if layer.kind in _OPAQUE:
        return False
    if not (layer.kind in _SHAPE_ONLY or all(t.is_constant for t in layer.inputs)):
        return False
    if any(t in network.outputs or t.dtype is DataType.BFLOAT16 for t in layer.outputs):
        return False
    size = sum(t.type.num_elems * t.dtype.size_bytes for t in layer.outputs)
    source = sum(t.type.num_elems * t.dtype.size_bytes for t in layer.inputs)
    return size <= max(MAX_EXPANSION_BYTES, source)
