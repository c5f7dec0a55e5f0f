"""Cast and CastLike between the element types that tensors have."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import element_type
from builder_host.network.network import Tensor


@operator("Cast", since=(6, 9, 13, 19, 21, 23, 24, 25, 28))
def cast(node: Node) -> Tensor:
    """To the type of attribute `to`; `saturate` and `round_mode` concern 8-bit floats only."""
    node.skip_attrs("saturate", "round_mode")
    return node.cast(node.input(0), element_type(node.attr_int("to", 0), "attribute 'to'"))


@operator("CastLike", since=(15, 19, 21, 23, 24, 25))
def cast_like(node: Node) -> Tensor:
    """To the type of another tensor."""
    node.skip_attrs("saturate", "round_mode")
    return node.cast(node.input(0), node.input(1).dtype)
