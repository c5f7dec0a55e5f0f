"""float32 tensors -> bfloat16 around products, for CPUs with bfloat16 dot products.

Products with constant weights, and the layers that only move, join or fold values between them,
read and write bfloat16. All else, bindings and bias vectors stay float32; casts stand between.
"""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np

from builder_host.expressions import Binary, Expr, Input, substitute
from builder_host.network.editing import check_network, insert_before
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.tensor_type import TensorType
from builder_host.passes.channels import channel_axis
from planformat.datatypes import DataType

PRODUCTS = frozenset({"convolution", "fully_connected", "matrix_multiply"})
_FOLLOW = frozenset({"pointwise", "pooling", "concatenation", "slice", "reshape", "transpose"})
_WIDE, _NARROW = DataType.FLOAT32, DataType.BFLOAT16


def run(network: Network, wide: Collection[Layer] = ()) -> int:
    """Rewrite a network in place.

    Args:
        network: after `run_passes`, in float32 where it computes with floats.
        wide: layers that stay in float32.

    Returns:
        Number of products computed in bfloat16.
    """
    products = {y for y in network.layers if _is_product(y) and y not in wide}
    narrow = products | {y for y in network.layers if _follows(y) and y not in wide}
    stored = {
        tensor
        for layer in narrow
        for tensor in layer.outputs
        if tensor.dtype is _WIDE and tensor not in network.outputs
    }
    for tensor in stored:
        tensor.type = TensorType(tensor.shape, _NARROW)
    copies: dict[Tensor, Tensor] = {}
    for layer in list(network.layers):
        if layer in narrow:
            if layer in products:
                _narrow_product(network, layer)
            if layer.kind == "pointwise":
                layer.params = PointwiseParams(layer.params.expr, layer.output.dtype)
            else:
                own = [_as(network, t, _NARROW, layer, copies) for t in layer.own_inputs]
                layer.inputs = [*own, *layer.operands]
                _keep_output(network, layer)
        else:
            layer.inputs = [
                _as(network, t, _WIDE, layer, copies) if t in stored else t for t in layer.inputs
            ]
    check_network(network)
    return len(products)


def _is_product(layer: Layer) -> bool:
    if layer.kind not in PRODUCTS or len(layer.own_inputs) < 2:
        return False
    x, *constants = layer.own_inputs
    if x.is_constant or any(t.values is None for t in constants):
        return False
    return all(t.dtype in (_WIDE, _NARROW) for t in layer.own_inputs)


def _follows(layer: Layer) -> bool:
    """Whether a layer that is no product computes in whatever float type its tensors have."""
    tensors = [*layer.own_inputs, *layer.outputs]
    return layer.kind in _FOLLOW and all(t.dtype is _WIDE for t in tensors)


def _narrow_product(network: Network, layer: Layer) -> None:
    """Weights in bfloat16; a bias becomes an operand of the epilogue, in float32."""
    x, weights, *bias = layer.own_inputs
    operands = layer.operands
    values = np.asarray(weights.values).astype(ml_dtypes.bfloat16)
    narrow = network.add_constant(values, f"{weights.name}.bf16")
    if bias:
        trailing = layer.output.type.rank - 1 - channel_axis(layer)
        shaped = np.asarray(bias[0].values).reshape(-1, *(1,) * trailing)
        before: Expr = layer.epilogue.expr if layer.epilogue else Input(0)
        biased = Binary("add", Input(0), Input(1))
        expr = substitute(before, [biased, *(Input(i + 2) for i in range(len(operands)))])
        operands = [network.add_constant(shaped, f"{bias[0].name}.shaped"), *operands]
        layer.epilogue = Epilogue(expr, len(operands))
    layer.inputs = [x, narrow, *operands]


def _as(
    network: Network, tensor: Tensor, dtype: DataType, reader: Layer, copies: dict[Tensor, Tensor]
) -> Tensor:
    """The tensor in another float type; the cast is made once, before its first reader."""
    if tensor.dtype is dtype or tensor.dtype not in (_WIDE, _NARROW):
        return tensor
    if tensor.values is not None:
        return network.add_constant(
            np.asarray(tensor.values).astype(ml_dtypes.bfloat16), f"{tensor.name}.{dtype.text}"
        )
    if tensor not in copies:
        name = f"{tensor.name}.{dtype.text}"
        cast = insert_before(network, reader, "cast", CastParams(dtype), [tensor], name)
        copies[tensor] = cast.output
    return copies[tensor]


def _keep_output(network: Network, layer: Layer) -> None:
    """A network output stays float32: the layer writes bfloat16, a cast makes the output."""
    for number, tensor in enumerate(layer.outputs):
        if tensor not in network.outputs or tensor.dtype is not _WIDE:
            continue
        raw = Tensor(
            network.unique_name(f"{tensor.name}.bf16"),
            TensorType(tensor.shape, _NARROW),
            producer=layer,
        )
        layer.outputs[number] = raw
        cast = Layer(
            "cast", network.unique_name(f"cast {tensor.name}"), CastParams(_WIDE), [raw], [tensor]
        )
        tensor.producer = cast
        network.layers.insert(network.layers.index(layer) + 1, cast)
