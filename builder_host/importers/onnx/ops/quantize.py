"""QuantizeLinear and DequantizeLinear per tensor, axis or block, as plain arithmetic."""

from __future__ import annotations

import numpy as np

from builder_host.expressions import Binary, Input, Unary, clip
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Tensor
from builder_host.network.rules import EIGHT_BITS
from planformat.datatypes import DataType

_RANGES = {
    DataType.INT8: (-128.0, 127.0),
    DataType.UINT8: (0.0, 255.0),
    DataType.INT16: (-32768.0, 32767.0),
    DataType.UINT16: (0.0, 65535.0),
}


@operator("QuantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
def quantize_linear(node: Node) -> Tensor:
    """round(x / scale) half to even, plus the zero point, saturated."""
    node.skip_attrs("saturate", "precision")
    x = node.input(0)
    scale, zero = _along_axis(node, x, 1), node.optional(2)
    code = node.attr_int("output_dtype", 0)
    dtype = zero.dtype if zero is not None else DataType.UINT8
    if code:
        dtype = element_type(code, "attribute 'output_dtype'")
    if dtype not in _RANGES:
        node.fail(f"quantising to {dtype.text} is not supported; one of i8, u8, i16, u16")
    rounded = Unary("round", Binary("div", Input(0), Input(1)))
    x = node.cast(x, DataType.FLOAT32)
    inputs = [x, node.cast(scale, DataType.FLOAT32)]
    if zero is None:
        return node.pointwise(clip(rounded, *_RANGES[dtype]), *inputs, dtype=dtype)
    inputs.append(node.cast(_along_axis(node, x, 2), DataType.FLOAT32))
    shifted = Binary("add", rounded, Input(2))
    return node.pointwise(clip(shifted, *_RANGES[dtype]), *inputs, dtype=dtype)


@operator("DequantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
def dequantize_linear(node: Node) -> Tensor:
    """(x - zero point) * scale in the type of the scale."""
    x = node.input(0)
    scale = _along_axis(node, x, 1)
    code = node.attr_int("output_dtype", 0)
    dtype = element_type(code, "attribute 'output_dtype'") if code else scale.dtype
    zero = None if node.optional(2) is None else _along_axis(node, x, 2)
    return node.cast(dequantised(node, x, scale, zero), dtype)


@operator("DynamicQuantizeLinear", since=(11,))
def dynamic_quantize_linear(node: Node) -> list[Tensor]:
    """To UINT8 by the range of the values, zero included."""
    x = node.input(0)
    axes = tuple(range(x.type.rank))
    low = node.binary("min", node.reduce("min", x, axes, keep_dims=False), 0.0)
    high = node.binary("max", node.reduce("max", x, axes, keep_dims=False), 0.0)
    scale = node.binary("div", node.binary("sub", high, low), 255.0)
    zero = Unary("round", clip(Binary("div", Unary("neg", Input(0)), Input(1)), 0.0, 255.0))
    point = node.pointwise(zero, low, scale)
    quotient = Unary("round", Binary("div", Input(0), Input(1)))
    expr = clip(Binary("add", quotient, Input(2)), 0.0, 255.0)
    y = node.pointwise(expr, x, scale, point, dtype=DataType.UINT8)
    return [y, scale, node.cast(point, DataType.UINT8)]


def dequantised(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """(x - zero) * scale as one layer, which later passes recognise.

    Weights of 8 bits stay the integers that they are: the layer is kept although all is known.
    """
    if zero is not None and zero.values is not None and not zero.values.any():
        zero = None
    if zero is None:
        inputs, expr = [x, scale], Binary("mul", Input(0), Input(1))
    else:
        inputs = [x, node.cast(zero, scale.dtype), scale]
        expr = Binary("mul", Binary("sub", Input(0), Input(1)), Input(2))
    is_weights = x.is_constant and x.type.rank >= 2 and x.dtype in EIGHT_BITS
    if not is_weights or scale.dtype is not DataType.FLOAT32:
        return node.pointwise(expr, *inputs, dtype=scale.dtype)
    name = node.scratch_name(f"{x.name}:dequantised")
    params = PointwiseParams(expr, scale.dtype)
    layer = node.network.add_layer("pointwise", params, inputs, name, origin=node.where)
    node.created.append(layer.output)
    return layer.output


def _along_axis(node: Node, x: Tensor, number: int) -> Tensor:
    """Input `number` shaped to broadcast against x: per tensor, slice or block of `axis`."""
    axis = node.attr_int("axis", 1)
    block = node.attr_int("block_size", 0)
    tensor = node.input(number)
    if block:
        return _repeated(node, x, tensor, node.axis(axis, x.type.rank), block)
    if tensor.type.num_elems == 1 and tensor.type.rank <= 1:
        return node.reshape(tensor, ())
    axis = node.axis(axis, x.type.rank)
    if tensor.shape != (x.shape[axis],):
        node.fail(f"'{tensor.name}' of {tensor.type} does not fit axis {axis} of {x.type}")
    return node.reshape(tensor, [d if i == axis else 1 for i, d in enumerate(x.shape)])


def _repeated(node: Node, x: Tensor, tensor: Tensor, axis: int, block: int) -> Tensor:
    """One value per `block` elements of an axis -> one per element; the last block may be short."""
    if block < 0:
        node.fail(f"attribute 'block_size' is {block}; expected at least 0")
    shape = [-(-d // block) if i == axis else d for i, d in enumerate(x.shape)]
    if list(tensor.shape) != shape:
        node.fail(
            f"'{tensor.name}' of {tensor.type} does not fit blocks of {block} along axis {axis} of "
            f"{x.type}; expected {shape}"
        )
    places = np.arange(x.shape[axis], dtype=np.int64) // block
    return node.add("gather", GatherParams(axis), tensor, node.const(places))
