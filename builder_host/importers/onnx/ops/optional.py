"""Optionals: whether there is something in them is known while importing."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.values import OptionalValue, TensorSequence, Value
from builder_host.network.network import Tensor


@operator("Optional", since=(15, 28))
def optional(node: Node) -> OptionalValue:
    """Holds its input; without one it is empty."""
    node.skip_attrs("type")
    content = node.value(0)
    if isinstance(content, OptionalValue):
        node.fail("an optional cannot hold another optional")
    return OptionalValue(content)


@operator("OptionalHasElement", since=(15, 18, 28))
def optional_has_element(node: Node) -> Tensor:
    """Whether there is something; tensors and sequences always are something."""
    value = node.value(0)
    has = value is not None and not (isinstance(value, OptionalValue) and value.content is None)
    return node.const(np.asarray(has))


@operator("OptionalGetElement", since=(15, 18, 28))
def optional_get_element(node: Node) -> Value:
    """What it holds."""
    value = node.value(0)
    content = value.content if isinstance(value, OptionalValue) else value
    if not isinstance(content, Tensor | TensorSequence):
        node.fail("the optional is empty; only its presence can be asked")
    return content
