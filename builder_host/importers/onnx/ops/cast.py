"""Cast and CastLike between the element types that tensors have."""

from __future__ import annotations

import onnx

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.network import Tensor


@operator("Cast", since=(1, 6, 9, 13, 19, 21, 23, 24, 25, 28))
def cast(node: Node) -> Tensor:
    """To the type of attribute `to`; `saturate` and `round_mode` concern 8-bit floats only."""
    node.skip_attrs("saturate", "round_mode")
    if node.version == 1:  # the type by its name
        names = onnx.TensorProto.DataType
        code = names.Value(node.choice("to", "UNDEFINED", names.keys()))
    else:
        code = node.attr_int("to", 0)
    return node.cast(node.input(0), element_type(code, "attribute 'to'"))


@operator("CastLike", since=(15, 19, 21, 23, 24, 25))
def cast_like(node: Node) -> Tensor:
    """To the type of another tensor."""
    node.skip_attrs("saturate", "round_mode")
    return node.cast(node.input(0), node.input(1).dtype)
