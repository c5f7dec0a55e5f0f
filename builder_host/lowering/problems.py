"""Layers -> problems: what each layer asks of the kernel families, given the layouts of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from builder_host.expressions import Input
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Layer, Network, Tensor
from planformat.datatypes import TensorFormat

Formats = Mapping[Tensor, TensorFormat]


def layer_problem(
    layer: Layer,
    layout_of: Callable[[Tensor], Layout],
    num_workers: int,
    math: Literal["", "tf32"] = "",
) -> Problem:
    """The problem of one layer; constants are dense and LINEAR until a family packs them."""
    return Problem(
        kind=layer.kind,
        params=layer.params,
        inputs=tuple(dense_layout(t.type) if t.is_constant else layout_of(t) for t in layer.inputs),
        is_constant=tuple(t.is_constant for t in layer.inputs),
        outputs=tuple(layout_of(t) for t in layer.outputs),
        epilogue=layer.epilogue,
        num_workers=num_workers,
        math=math,
    )


def copy_problem(source: Layout, target: Layout, num_workers: int) -> Problem:
    """Copy one tensor into another place: the identity as a pointwise problem."""
    return Problem(
        "pointwise", PointwiseParams(Input(0)), (source,), (False,), (target,), None, num_workers
    )


def split_epilogue(network: Network, layer: Layer) -> Layer:
    """Take a layer's epilogue out again as a pointwise layer right behind it.

    Used where no family can compute the fused layer. The fused layer's output tensor stays the
    output of the new pointwise layer, so that consumers and network outputs are untouched.
    """
    epilogue = layer.epilogue
    if epilogue is None:
        raise ValueError(f"layer '{layer.name}' has no epilogue")
    operands = layer.operands
    final = layer.outputs[0]
    raw = Tensor(network.unique_name(f"{final.name}.raw"), final.type, producer=layer)
    layer.inputs = layer.own_inputs
    layer.epilogue = None
    layer.outputs[0] = raw
    pointwise = Layer(
        "pointwise",
        network.unique_name(f"{layer.name}.epilogue"),
        PointwiseParams(epilogue.expr, final.dtype),
        [raw, *operands],
        [final],
        None,
        layer.origin,
    )
    final.producer = pointwise
    network.layers.insert(network.layers.index(layer) + 1, pointwise)
    return pointwise
