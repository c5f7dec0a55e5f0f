"""Split along one axis: one slice per output."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


@operator("Split", since=(1, 2, 11, 13, 18))
def split(node: Node) -> list[Tensor]:
    """Sizes as attribute (to 11), as input (1, 13), or equal parts, the last one smaller (18)."""
    x = node.input(0)
    axis = node.axis(node.attr_int("axis", 0), x.type.rank)
    extent, count = x.shape[axis], len(node.proto.output)
    sizes = node.attr_ints("split") if node.version < 13 else None
    if sizes is None and node.num_inputs > 1:
        sizes = node.optional_ints(1, "split")
    if node.version >= 18 and node.has_attr("num_outputs"):
        stated = node.attr_int("num_outputs", count)
        if stated != count:
            node.fail(f"attribute 'num_outputs' is {stated} but the node has {count} outputs")
    if sizes is None:
        part = -(-extent // count)
        if node.version < 18 and extent % count:
            node.fail(f"extent {extent} does not divide into {count} equal outputs")
        sizes = tuple(max(0, min(part, extent - i * part)) for i in range(count))
    if len(sizes) != count or sum(sizes) != extent or min(sizes) < 0:
        node.fail(f"sizes {sizes} do not split extent {extent} into {count} outputs")
    outputs = []
    start = 0
    for size in sizes:
        starts, shape = [0] * x.type.rank, list(x.shape)
        starts[axis], shape[axis] = start if size else 0, size
        outputs.append(node.slice(x, starts, shape, [1] * x.type.rank))
        start += size
    return outputs
