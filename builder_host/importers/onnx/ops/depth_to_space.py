"""DepthToSpace and SpaceToDepth as reshape, transpose, reshape."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor


def _block(node: Node) -> tuple[int, tuple[int, ...]]:
    x = node.input(0)
    block = node.attr_int("blocksize", 0)
    if x.type.rank != 4 or block < 1:
        node.fail(f"a rank-4 input and a positive blocksize are needed, got {x.type} and {block}")
    return block, x.shape


@operator("DepthToSpace", since=(1, 11, 13, 28))
def depth_to_space(node: Node) -> Tensor:
    """Blocks outermost in the channels (DCR) or innermost (CRD)."""
    b, (n, c, h, w) = _block(node)
    mode = node.choice("mode", "DCR", ("DCR", "CRD"))
    if c % (b * b):
        node.fail(f"{c} channels do not divide by blocksize squared ({b * b})")
    inner = c // (b * b)
    if mode == "DCR":
        split, order = (n, b, b, inner, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, inner, b, b, h, w), (0, 1, 4, 2, 5, 3)
    moved = node.transpose(node.reshape(node.input(0), split), order)
    return node.reshape(moved, (n, inner, h * b, w * b))


@operator("SpaceToDepth", since=(1, 13, 28))
def space_to_depth(node: Node) -> Tensor:
    """The inverse of DepthToSpace in the same mode."""
    b, (n, c, h, w) = _block(node)
    if h % b or w % b:
        node.fail(f"space {h}x{w} does not divide by blocksize {b}")
    split = node.reshape(node.input(0), (n, c, h // b, b, w // b, b))
    mode = node.choice("mode", "DCR", ("DCR", "CRD"))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return node.reshape(node.transpose(split, order), (n, c * b * b, h // b, w // b))
