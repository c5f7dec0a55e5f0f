"""BitCast: the same bytes as another element type."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.layers.bit_cast import BitCastParams
from builder_host.network.network import Tensor
from planformat.datatypes import DataType


@operator("BitCast", since=(26,))
def bit_cast(node: Node) -> Tensor:
    """Of integers, booleans and float32: other floats are computed as float32."""
    x = node.input(0)
    wanted = element_type(node.attr_int("to", 0), "attribute 'to'")
    for dtype in (x.dtype, wanted):
        if dtype.is_float and dtype is not DataType.FLOAT32:
            node.fail(
                f"the bits of {dtype.text} are not kept, because a plan computes it in float32; "
                "cast to float32 first"
            )
    if wanted is x.dtype:
        return x
    return node.add("bit_cast", BitCastParams(x.dtype, wanted), x)
