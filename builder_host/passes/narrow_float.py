"""float32 tensors -> float16 inside, casts at the bindings. Runs on a network in float32.

Weights become float16 here; small per-channel constants of epilogues stay float32, because kernels
accumulate and apply epilogues in float32.
"""

from __future__ import annotations

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.layers.cast import CastParams
from builder_host.network.network import Layer, Network, Tensor
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

_WIDE, _NARROW = DataType.FLOAT32, DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
# Kinds whose constants and outputs keep float32; their other inputs may come in float16. Box
# coordinates need more than float16's 11 bits.
_WIDE_KINDS = frozenset({"detection_output"})


def run(network: Network) -> int:
    """Store float32 values as float16; bindings keep float32.

    Returns:
        Number of tensors whose type changed.

    Raises:
        NetworkError: a weight is beyond float16's range; the text names it.
    """
    changed = 0
    for layer in network.layers:
        for tensor in layer.own_inputs if not _is_wide(layer) else ():
            if tensor.values is not None and tensor.dtype is _WIDE:
                changed += _narrow_constant(tensor, layer)
    for tensor in list(network.inputs):
        if tensor.dtype is _WIDE:
            changed += _cast_input(network, tensor)
    computed = [
        tensor
        for layer in network.layers
        for tensor in layer.outputs
        if tensor.dtype is _WIDE and not _is_wide(layer)
    ]
    for tensor in computed:
        tensor.type = TensorType(tensor.shape, _NARROW)
    for layer in [y for y in network.layers if y.kind == "plugin" and _is_wide(y)]:
        _cast_around(network, layer)
    for number, tensor in enumerate(list(network.outputs)):
        if tensor in computed:
            _cast_output(network, number, tensor)
    return changed + len(computed)


def _is_wide(layer: Layer) -> bool:
    """Whether a layer's constants and outputs keep float32."""
    if layer.kind == "plugin":
        return _NARROW not in layer.params.plugin.dtypes
    return layer.kind in _WIDE_KINDS


def _cast_around(network: Network, layer: Layer) -> None:
    """Give a plugin that knows no float16 its inputs in float32, and its readers float16."""
    for tensor in dict.fromkeys(layer.inputs):
        if tensor.dtype is not _NARROW:
            continue
        wide = Tensor(network.unique_name(f"{tensor.name}.f32"), TensorType(tensor.shape, _WIDE))
        name = network.unique_name(f"cast {wide.name}")
        cast = Layer("cast", name, CastParams(_WIDE), [tensor], [wide])
        wide.producer = cast
        network.layers.insert(network.layers.index(layer), cast)
        layer.inputs = [wide if t is tensor else t for t in layer.inputs]
    for tensor in layer.outputs:
        readers = [
            y
            for y in network.layers
            if tensor in y.inputs and not (y.kind == "plugin" and _is_wide(y))
        ]
        if tensor.dtype is not _WIDE or not readers:
            continue
        narrow = Tensor(
            network.unique_name(f"{tensor.name}.f16"), TensorType(tensor.shape, _NARROW)
        )
        name = network.unique_name(f"cast {narrow.name}")
        cast = Layer("cast", name, CastParams(_NARROW), [tensor], [narrow])
        narrow.producer = cast
        network.layers.insert(network.layers.index(layer) + 1, cast)
        for reader in readers:
            reader.inputs = [narrow if t is tensor else t for t in reader.inputs]


def _narrow_constant(tensor: Tensor, layer: Layer) -> int:
    values = np.asarray(tensor.values)
    peak = float(np.abs(values).max(initial=0.0))
    if peak > _LARGEST:
        raise NetworkError(
            f"layer '{layer.name}': constant '{tensor.name}' reaches {peak:g}, float16 ends at "
            f"{_LARGEST:g}; build it in float32"
        )
    narrow = values.astype(np.float16)
    narrow.flags.writeable = False
    tensor.values = narrow
    tensor.type = TensorType(tensor.shape, _NARROW)
    return 1


def _cast_input(network: Network, tensor: Tensor) -> int:
    readers = [layer for layer in network.layers if tensor in layer.inputs]
    if not readers:
        return 0
    narrow = Tensor(network.unique_name(f"{tensor.name}.f16"), TensorType(tensor.shape, _NARROW))
    cast = Layer(
        "cast", network.unique_name(f"cast {tensor.name}"), CastParams(_NARROW), [tensor], [narrow]
    )
    narrow.producer = cast
    network.layers.insert(network.layers.index(readers[0]), cast)
    for layer in readers:
        layer.inputs = [narrow if t is tensor else t for t in layer.inputs]
    return 1


def _cast_output(network: Network, number: int, tensor: Tensor) -> None:
    name, tensor.name = tensor.name, network.unique_name(f"{tensor.name}.f16")
    wide = Tensor(name, TensorType(tensor.shape, _WIDE))
    cast = Layer("cast", network.unique_name(f"cast {name}"), CastParams(_WIDE), [tensor], [wide])
    wide.producer = cast
    network.layers.append(cast)
    network.outputs[number] = wide
