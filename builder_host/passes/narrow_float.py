"""float32 tensors -> float16 inside, casts at the bindings. Runs on a network in float32.

Weights become float16 here; small per-channel constants of epilogues stay float32, because kernels
accumulate and apply epilogues in float32. Layers may be left wide: casts stand around them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.layers.cast import CastParams
from builder_host.network.network import Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

_WIDE, _NARROW = DataType.FLOAT32, DataType.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
# Kinds whose constants and outputs keep float32; their other inputs may come in float16. Box
# coordinates need more than float16's 11 bits.
_WIDE_KINDS = frozenset({"detection_output"})
# Kinds that read, compute and store float32: a position in float16 is half an element off at 1024.
_COORDINATE_KINDS = frozenset({"box_selection", "grid_sample", "roi_align", "roi_pool"})
# Casts between these and float32 keep float32: counts and positions end at 2048 in float16.
_COUNTS = frozenset({DataType.INT32, DataType.INT64})


def run(network: Network, wide_layers: Collection[Layer] = ()) -> int:
    """Store float32 values as float16; bindings keep float32.

    Args:
        network: is changed.
        wide_layers: read, compute and store float32, as do plugins that know no float16.

    Returns:
        Number of tensors whose type changed.

    Raises:
        NetworkError: a weight is beyond float16's range; the text names it.
    """
    layers = list(network.layers)
    wide = {y for y in layers if y in wide_layers or _needs_float32(y)}
    keeps = wide | {y for y in layers if y.kind in _WIDE_KINDS}
    changed = sum(_narrow_constants(network, y, keeps) for y in layers if y not in keeps)
    for tensor in list(network.inputs):
        if tensor.dtype is _WIDE:
            readers = [y for y in network.layers if tensor in y.inputs and y not in wide]
            readers = [y for y in readers if not _quantises(y)]
            changed += _cast_before(network, tensor, _NARROW, readers)
    computed = [t for y in layers for t in y.outputs if t.dtype is _WIDE and y not in keeps]
    for tensor in computed:
        tensor.type = TensorType(tensor.shape, _NARROW)
    for layer in layers:
        for tensor in layer.outputs:
            readers = [y for y in network.layers if tensor in y.inputs]
            if layer in wide and tensor.dtype is _WIDE:
                _cast_before(network, tensor, _NARROW, [y for y in readers if y not in wide])
            elif tensor.dtype is _NARROW:
                _cast_before(network, tensor, _WIDE, [y for y in readers if y in wide])
    for number, tensor in enumerate(list(network.outputs)):
        if tensor in computed:
            _cast_output(network, number, tensor)
    return changed + len(computed)


def _quantises(layer: Layer) -> bool:
    """Whether a layer turns real numbers into 8-bit ones, from floats of any width."""
    return layer.kind == "pointwise" and layer.output.dtype in EIGHT_BITS


def _needs_float32(layer: Layer) -> bool:
    if layer.kind == "plugin":
        return _NARROW not in layer.params.plugin.dtypes
    if layer.kind == "cast":
        return not _COUNTS.isdisjoint((layer.inputs[0].dtype, layer.output.dtype))
    return layer.kind in _COORDINATE_KINDS


def _narrow_constants(network: Network, layer: Layer, wide: Collection[Layer]) -> int:
    count = 0
    for number, tensor in enumerate(layer.own_inputs):
        if tensor.values is None or tensor.dtype is not _WIDE:
            continue
        if any(tensor in other.inputs for other in wide):  # the wide layer keeps it as it is
            layer.inputs[number] = network.add_constant(tensor.values, f"{tensor.name}.f16")
        count += _narrow_constant(layer.inputs[number], layer)
    return count


def _narrow_constant(tensor: Tensor, layer: Layer) -> int:
    values = np.asarray(tensor.values)
    peak = float(np.abs(values).max(initial=0.0))
    if peak > LARGEST:
        raise NetworkError(
            f"layer '{layer.name}': constant '{tensor.name}' reaches {peak:g}, float16 ends at "
            f"{LARGEST:g}; build it in float32"
        )
    narrow = values.astype(np.float16)
    narrow.flags.writeable = False
    tensor.values = narrow
    tensor.type = TensorType(tensor.shape, _NARROW)
    return 1


def _cast_before(
    network: Network, tensor: Tensor, dtype: DataType, readers: Collection[Layer]
) -> int:
    """Let some layers read a tensor as another type, through one cast before the first of them."""
    if not readers:
        return 0
    copy = Tensor(
        network.unique_name(f"{tensor.name}.{dtype.text}"), TensorType(tensor.shape, dtype)
    )
    name = network.unique_name(f"cast {copy.name}")
    cast = Layer("cast", name, CastParams(dtype), [tensor], [copy])
    copy.producer = cast
    network.layers.insert(min(network.layers.index(y) for y in readers), cast)
    for layer in readers:
        layer.inputs = [copy if t is tensor else t for t in layer.inputs]
    return 1


def _cast_output(network: Network, number: int, tensor: Tensor) -> None:
    name, tensor.name = tensor.name, network.unique_name(f"{tensor.name}.f16")
    wide = Tensor(name, TensorType(tensor.shape, _WIDE))
    cast = Layer("cast", network.unique_name(f"cast {name}"), CastParams(_WIDE), [tensor], [wide])
    wide.producer = cast
    network.layers.append(cast)
    network.outputs[number] = wide
