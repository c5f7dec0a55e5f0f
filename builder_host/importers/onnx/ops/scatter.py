"""Scatter, ScatterElements, ScatterND and TensorScatter."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.cache_update import CacheUpdateParams
from builder_host.network.layers.scatter_elements import REDUCTIONS, ScatterElementsParams
from builder_host.network.layers.scatter_nd import ScatterNdParams
from builder_host.network.network import Tensor


@operator("Scatter", since=(9, 11))
def scatter(node: Node) -> Tensor:
    """The old name of ScatterElements."""
    return _elements(node, "none")


@operator("ScatterElements", since=(11, 13, 16, 18))
def scatter_elements(node: Node) -> Tensor:
    """Single elements along an axis."""
    return _elements(node, node.choice("reduction", "none", tuple(REDUCTIONS)))


def _elements(node: Node, reduction: str) -> Tensor:
    data = node.input(0)
    axis = node.axis(node.attr_int("axis", 0), data.type.rank)
    inputs = (data, node.input(1), node.input(2))
    return node.add("scatter_elements", ScatterElementsParams(axis, reduction), *inputs)


@operator("ScatterND", since=(11, 13, 16, 18))
def scatter_nd(node: Node) -> Tensor:
    """Slices at coordinates."""
    params = ScatterNdParams(node.choice("reduction", "none", tuple(REDUCTIONS)))
    return node.add("scatter_nd", params, node.input(0), node.input(1), node.input(2))


@operator("TensorScatter", since=(24,))
def tensor_scatter(node: Node) -> Tensor:
    """New rows of a cache, from a position of its own in each batch; 0 when left out."""
    past, update = node.input(0), node.input(1)
    axis = node.axis(node.attr_int("axis", -2), past.type.rank)
    is_circular = node.choice("mode", "linear", ("linear", "circular")) == "circular"
    starts = node.optional(2) or node.const([0] * past.shape[0])
    return node.add("cache_update", CacheUpdateParams(axis, is_circular), past, update, starts)
