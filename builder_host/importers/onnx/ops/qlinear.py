"""Quantised operators (QLinear*, *Integer) as dequantise, float arithmetic, quantise.

`passes/fuse_quantised` turns products of dequantised tensors into products of integers.
"""

from __future__ import annotations

from builder_host.expressions import Binary, Input, Unary, clip
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.ops.quantize import dequantised
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import add_convolution
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType

_RANGES = {DataType.INT8: (-128.0, 127.0), DataType.UINT8: (0.0, 255.0)}


@operator("QLinearConv", since=(10,))
def qlinear_conv(node: Node) -> Tensor:
    """Convolution of dequantised values, quantised again; the bias is INT32 of both scales."""
    x_scale, w_scale = _parameter(node, 1), _parameter(node, 4, channel_of=3)
    x = dequantised(node, node.input(0), x_scale, _zero(node, 2))
    w = dequantised(node, node.input(3), w_scale, _zero(node, 5, channel_of=3))
    bias = node.optional(8)
    inputs = [x, w]
    if bias is not None:
        scale = node.binary("mul", x_scale, node.reshape(w_scale, (w_scale.type.num_elems,)))
        inputs.append(node.binary("mul", node.cast(bias, DataType.FLOAT32), scale))
    return _quantized(node, add_convolution(node, inputs, w.shape[2:]), 6, 7)


@operator("ConvInteger", since=(10,))
def conv_integer(node: Node) -> Tensor:
    """Convolution of 8-bit values to INT32."""
    x, w = _centred(node, 0, 2), _centred(node, 1, 3, channel_axis=0)
    return node.cast(add_convolution(node, [x, w], w.shape[2:]), DataType.INT32)


@operator("QLinearMatMul", since=(10, 21))
def qlinear_matmul(node: Node) -> Tensor:
    """Product of dequantised values, quantised again."""
    a = dequantised(node, node.input(0), _parameter(node, 1), _zero(node, 2))
    b = dequantised(node, node.input(3), _parameter(node, 4), _zero(node, 5))
    return _quantized(node, node.add("matrix_multiply", MatrixMultiplyParams(), a, b), 6, 7)


@operator("MatMulInteger", since=(10,))
def matmul_integer(node: Node) -> Tensor:
    """Product of 8-bit values to INT32."""
    a, b = _centred(node, 0, 2), _centred(node, 1, 3)
    y = node.add("matrix_multiply", MatrixMultiplyParams(), a, b)
    return node.cast(y, DataType.INT32)


@operator("QLinearAdd", since=(1,), domain="com.microsoft")
def qlinear_add(node: Node) -> Tensor:
    """Sum of dequantised values, quantised again (ONNX Runtime's operator)."""
    a = dequantised(node, node.input(0), _parameter(node, 1), _zero(node, 2))
    b = dequantised(node, node.input(3), _parameter(node, 4), _zero(node, 5))
    return _quantized(node, node.binary("add", a, b), 6, 7)


def _centred(node: Node, number: int, zero: int, *, channel_axis: int | None = None) -> Tensor:
    """Input minus its zero point, as FLOAT32."""
    x = node.cast(node.input(number), DataType.FLOAT32)
    if node.optional(zero) is None:
        return x
    channel_of = number if channel_axis is not None else None
    point = _parameter(node, zero, channel_of=channel_of)
    if point.values is not None and not point.values.any():
        return x
    return node.binary("sub", x, point)


def _zero(node: Node, number: int, *, channel_of: int | None = None) -> Tensor | None:
    """A zero point as FLOAT32, or None when it is left out."""
    if node.optional(number) is None:
        return None
    return _parameter(node, number, channel_of=channel_of)


def _parameter(node: Node, number: int, *, channel_of: int | None = None) -> Tensor:
    """A scale or zero point as FLOAT32: a scalar, one value per channel of weights, or as is."""
    tensor = node.cast(node.input(number), DataType.FLOAT32)
    if tensor.type.num_elems == 1:
        return node.reshape(tensor, ())
    if channel_of is None:
        return tensor
    weights = node.input(channel_of)
    if tensor.shape != weights.shape[:1]:
        node.fail(f"'{tensor.name}' of {tensor.type} does not fit the channels of {weights.type}")
    return node.reshape(tensor, (*tensor.shape, *(1,) * (weights.type.rank - 1)))


def _quantized(node: Node, y: Tensor, scale: int, zero: int) -> Tensor:
    """round(y / scale) half to even, plus the zero point, saturated to the zero point's type."""
    point = node.optional(zero)
    dtype = DataType.UINT8 if point is None else point.dtype
    if dtype not in _RANGES:
        node.fail(f"quantising to {dtype.text} is not supported; one of i8, u8")
    scales = _parameter(node, scale)
    rounded = Unary("round", Binary("div", Input(0), Input(1)))
    if point is None:
        return node.pointwise(clip(rounded, *_RANGES[dtype]), y, scales, dtype=dtype)
    shifted = _parameter(node, zero)
    expr = clip(Binary("add", rounded, Input(2)), *_RANGES[dtype])
    return node.pointwise(expr, y, scales, shifted, dtype=dtype)
