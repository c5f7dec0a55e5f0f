"""activation, elementwise, unary, scale, parametric ReLU, select -> pointwise(expression)."""

from __future__ import annotations

from typing import cast

from builder_host.network import layers as kinds
from builder_host.network.definition import PointwiseDefinition
from builder_host.network.editing import update_layer
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Network
from builder_host.passes.expression_rewrite import compact, simplify

KINDS = frozenset(
    {"activation", "elementwise", "unary", "scale", "parametric_relu", "select", "pointwise"}
)


def run(network: Network) -> int:
    """Replace each by its expression, with constants of one value inlined as literals.

    Returns:
        Number of layers that changed.
    """
    changed = 0
    for layer in network.layers:
        if layer.kind not in KINDS or layer.epilogue is not None:
            continue
        definition = cast(PointwiseDefinition, kinds.definition(layer.kind))
        expr = definition.expression(layer.params, len(layer.inputs))
        expr, inputs = compact(expr, layer.inputs, layer.output.shape)
        if all(t.dtype.is_float for t in [*inputs, layer.output]):
            expr = simplify(expr)
            expr, inputs = compact(expr, inputs, layer.output.shape)
        params = PointwiseParams(expr, layer.output.dtype)
        if (layer.kind, layer.params, layer.inputs) != ("pointwise", params, inputs):
            update_layer(network, layer, kind="pointwise", params=params, inputs=inputs)
            changed += 1
    return changed
