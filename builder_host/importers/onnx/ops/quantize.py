"""QuantizeLinear and DequantizeLinear per tensor or per axis, as plain arithmetic."""

from __future__ import annotations

from builder_host.expressions import Binary, Input, Unary, clip
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.network import Tensor
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
    values = node.cast(x, scale.dtype)
    if node.optional(2) is None:
        result = node.binary("mul", values, scale)
    else:
        zero = node.cast(_along_axis(node, x, 2), scale.dtype)
        difference = Binary("sub", Input(0), Input(1))
        result = node.pointwise(Binary("mul", difference, Input(2)), values, zero, scale)
    return node.cast(result, dtype)


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


def _along_axis(node: Node, x: Tensor, number: int) -> Tensor:
    """Input `number` shaped to broadcast against x: a scalar, or one value per slice of `axis`."""
    axis = node.attr_int("axis", 1)
    if node.attr_int("block_size", 0):
        node.fail("attribute 'block_size' is not supported; quantise per tensor or per axis")
    tensor = node.input(number)
    if tensor.type.num_elems == 1 and tensor.type.rank <= 1:
        return node.reshape(tensor, ())
    axis = node.axis(axis, x.type.rank)
    if tensor.shape != (x.shape[axis],):
        node.fail(f"'{tensor.name}' of {tensor.type} does not fit axis {axis} of {x.type}")
    return node.reshape(tensor, [d if i == axis else 1 for i, d in enumerate(x.shape)])
