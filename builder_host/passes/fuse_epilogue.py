"""hot layer -> bias, pointwise, residual becomes hot layer | epilogue."""

from __future__ import annotations

import numpy as np

from builder_host.expressions import Binary, Expr, Input, is_rounded, num_operations, substitute
from builder_host.network.editing import bypass_layer, move_before, update_layer
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.passes.channels import channel_axis, is_per_channel
from builder_host.passes.expression_rewrite import ordered
from planformat.datatypes import DataType

HOT_KINDS = frozenset(
    {"convolution", "deconvolution", "fully_connected", "matrix_multiply", "pooling"}
)
MAX_OPERATIONS = 40
MAX_RESIDUALS = 2


def run(network: Network) -> int:
    """Move biases and following pointwise layers into the epilogue of hot layers.

    A pointwise layer is fused when it alone reads the raw result and every other operand is a
    constant that varies over channels only, or a tensor of the output's full shape (a residual).
    The fused layer takes the pointwise layer's place in the order, where all operands exist; of two
    hot layers added together the later one takes the other as its operand.
    Afterwards no hot layer has a bias input.

    Returns:
        Number of biases and pointwise layers moved.
    """
    moved = 0
    for layer in reversed(list(network.layers)):
        if layer.kind not in HOT_KINDS:
            continue
        moved += _move_bias(network, layer)
        while _fuse_consumer(network, layer):
            moved += 1
    return moved


def _move_bias(network: Network, layer: Layer) -> bool:
    own = layer.own_inputs
    if layer.kind not in ("convolution", "deconvolution", "fully_connected") or len(own) < 3:
        return False
    bias = own[2]
    if layer.epilogue is not None or bias.values is None:
        return False
    operand = _channel_operand(network, layer, bias.values, f"{bias.name}.operand")
    update_layer(
        network,
        layer,
        inputs=[*own[:2], operand],
        epilogue=Epilogue(Binary("add", Input(0), Input(1)), 1),
    )
    return True


def _channel_operand(
    network: Network,
    layer: Layer,
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    name: str,
) -> Tensor:
    """A constant [K,1,1] (or [K] where channels come last) of values per channel."""
    trailing = layer.output.type.rank - 1 - channel_axis(layer)
    shape = (values.size, *(1,) * trailing)
    return network.add_constant(values.reshape(shape), name)


def _fuse_consumer(network: Network, layer: Layer) -> bool:
    raw = layer.output
    readers = network.readers_of(raw)
    if raw in network.outputs or len(readers) != 1:
        return False
    (consumer,) = readers
    if consumer.kind != "pointwise" or consumer.epilogue is not None:
        return False
    if not _stores_what(consumer, raw, layer):
        return False
    others = [t for t in consumer.inputs if t is not raw]
    if not all(_is_operand(t, layer) for t in others):
        return False
    if sum(not t.is_constant for t in {*others, *layer.operands}) > MAX_RESIDUALS:
        return False
    before: Expr = layer.epilogue.expr if layer.epilogue else Input(0)
    operands = list(layer.operands)
    places: list[Expr] = []
    for tensor in consumer.inputs:
        if tensor is raw:
            places.append(before)
            continue
        if tensor not in operands:
            operands.append(tensor)
        places.append(Input(1 + operands.index(tensor)))
    expr = ordered(substitute(consumer.params.expr, places))
    if num_operations(expr) > MAX_OPERATIONS:
        return False
    operands = [_canonical(network, layer, t) for t in operands]
    move_before(network, layer, consumer)
    raw.type = consumer.output.type
    update_layer(
        network,
        layer,
        inputs=[*layer.own_inputs, *operands],
        epilogue=Epilogue(expr, len(operands)),
    )
    if not bypass_layer(network, consumer, raw):
        raise RuntimeError(f"layer '{consumer.name}' could not be bypassed")
    return True


def _stores_what(consumer: Layer, raw: Tensor, layer: Layer) -> bool:
    """Whether the layer can store what the consumer does: its own type, or 8 bits from 8 bits.

    A product of integers that rounds already may round again: both are in the expression.
    """
    if consumer.output.shape != raw.shape:
        return False
    if layer.kind != "pooling" and layer.inputs[0].dtype in EIGHT_BITS:
        is_real = consumer.output.dtype.is_float
        return is_real or is_rounded(consumer.params.expr)
    if layer.inputs[0].dtype in EIGHT_BITS and consumer.output.dtype in EIGHT_BITS:
        return raw.dtype.is_float and is_rounded(consumer.params.expr)
    return raw.dtype.is_float and consumer.output.dtype is raw.dtype


def _is_operand(tensor: Tensor, layer: Layer) -> bool:
    if layer.inputs[0].dtype in EIGHT_BITS:
        is_integer = tensor.dtype in EIGHT_BITS and not tensor.is_constant
        if tensor.dtype is not DataType.FLOAT32 and not is_integer:
            return False
    elif tensor.dtype is not layer.output.dtype:
        return False
    if tensor.is_constant:
        return is_per_channel(tensor.shape, layer.output.shape, channel_axis(layer))
    return tensor.shape == layer.output.shape


def _canonical(network: Network, layer: Layer, tensor: Tensor) -> Tensor:
    """A constant operand in its canonical shape; a single value is repeated per channel."""
    if tensor.values is None:
        return tensor
    axis = channel_axis(layer)
    channels = layer.output.shape[axis]
    trailing = layer.output.type.rank - 1 - axis
    if tensor.shape == (channels, *(1,) * trailing):
        return tensor
    values = np.broadcast_to(tensor.values.reshape(-1), (channels,))
    return _channel_operand(network, layer, np.ascontiguousarray(values), f"{tensor.name}.operand")
