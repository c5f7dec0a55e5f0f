"""Identity and Dropout: the same values at inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.values import Value
from builder_host.importers.onnx.weights import Array
from builder_host.network.network import Tensor


@operator("Identity", since=(1, 13, 14, 16, 19, 21, 23, 24, 25))
def identity(node: Node) -> Value:
    """An alias, of sequences and optionals as well."""
    value = node.value(0)
    return node.input(0) if value is None else value


@operator("Dropout", since=(1, 6, 7, 10, 12, 13, 22))
def dropout(node: Node) -> Sequence[Tensor]:
    """An alias; the mask keeps everything."""
    node.skip_attrs("ratio", "seed", "is_test")
    if node.optional(2) is not None and node.constant(2, "training_mode").any():
        ratio = node.constant(1, "ratio") if node.optional(1) is not None else np.asarray(0.5)
        if float(ratio.item()) != 0.0:
            node.fail("training_mode is true; export the model for inference")
    x = node.input(0)
    if len(node.wanted) < 2 or not node.wanted[1]:
        return [x]
    node.check_size(x.shape)
    ones: Array = np.ones(x.shape, np.bool_ if node.version >= 10 else np.float32)
    return [x, node.const(ones, None if node.version >= 10 else x.dtype)]
