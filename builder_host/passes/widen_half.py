"""float16, bfloat16, float64 tensors -> float32 inside, casts at the bindings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builder_host.network.editing import insert_before
from builder_host.network.layers.cast import CastParams
from builder_host.network.network import Network, Tensor
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

_OTHER_FLOATS = frozenset({DataType.FLOAT16, DataType.BFLOAT16, DataType.FLOAT64})


def run(network: Network) -> int:
    """Compute in float32 whatever the model's float type; network inputs and outputs keep theirs.

    Returns:
        Number of tensors whose type changed.
    """
    changed = [t for t in network.tensors() if t.dtype in _OTHER_FLOATS]
    if not changed or not network.layers:
        return 0
    outputs = {t: t.dtype for t in network.outputs if t.dtype in _OTHER_FLOATS}
    for tensor in changed:
        if tensor.values is not None:
            _widen_constant(tensor)
    for layer in network.layers:
        if getattr(layer.params, "dtype", None) in _OTHER_FLOATS:
            layer.params = replace(layer.params, dtype=DataType.FLOAT32)
    first = network.layers[0]
    for tensor in network.inputs:
        if tensor.dtype in _OTHER_FLOATS and tensor in network.consumers():
            cast = insert_before(
                network, first, "cast", CastParams(DataType.FLOAT32), [tensor],
                f"{tensor.name}.widened", origin="input",
            )  # fmt: skip
            for layer in network.layers:
                if layer is not cast:
                    layer.inputs = [cast.output if t is tensor else t for t in layer.inputs]
    for layer in network.layers:
        for tensor, inferred in zip(layer.outputs, network.inferred_types(layer), strict=True):
            tensor.type = inferred
    for tensor, dtype in outputs.items():
        if tensor.producer is not None and tensor.dtype is not dtype:
            _narrow_output(network, tensor, dtype)
    return len(changed)


def _widen_constant(tensor: Tensor) -> None:
    with np.errstate(over="ignore"):  # a float64 beyond the range becomes inf
        values = np.asarray(tensor.values).astype(np.float32)
    values.flags.writeable = False
    tensor.values = values
    tensor.type = TensorType(tensor.shape, DataType.FLOAT32)


def _narrow_output(network: Network, tensor: Tensor, dtype: DataType) -> None:
    """Put a cast behind an output; the cast's result carries the output's name."""
    cast = network.add_layer(
        "cast", CastParams(dtype), [tensor], f"{tensor.name}.narrowed", origin="output"
    )
    tensor.name, cast.output.name = cast.output.name, tensor.name
    network.outputs[network.outputs.index(tensor)] = cast.output
