"""ReverseSequence: the first part of each sequence of a batch, backwards."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.reverse_sequence import ReverseSequenceParams
from builder_host.network.network import Tensor


@operator("ReverseSequence", since=(10, 28))
def reverse_sequence(node: Node) -> Tensor:
    """Batch and time are dimensions 0 and 1, in either order."""
    batch, time = node.attr_int("batch_axis", 1), node.attr_int("time_axis", 0)
    if {batch, time} != {0, 1}:
        node.fail(f"batch_axis {batch} and time_axis {time} must be 0 and 1 in some order")
    params = ReverseSequenceParams(batch, time)
    return node.add("reverse_sequence", params, node.input(0), node.input(1))
