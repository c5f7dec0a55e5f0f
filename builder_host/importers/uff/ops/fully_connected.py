"""FullyConnected: data times weights; bias is a node of its own."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.importers.uff.orders import INCREMENT
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams

OPERATIONS = ("FullyConnected",)
_ANY: tuple[int, ...] = (0, 1, INCREMENT)


def convert(view: NodeView) -> Value:
    """Data in canonical order, flattened behind the batch; weights [K, C] in canonical order."""
    view.require_inputs(2)
    data = view.ordered(0, view.order(0, _ANY))
    if len(data.shape) < 2:
        raise NodeProblem(f"the data has {len(data.shape)} dimensions, must have at least 2")
    if view.values[1].rank != 2:
        raise NodeProblem(f"the weights have {view.values[1].rank} dimensions, must have 2")
    weights = view.ordered(1, view.order(1, (0, 1)))
    if weights.is_constant:
        return plain_value(view.add("fully_connected", FullyConnectedParams(), [data, weights]))
    flat = view.reshaped(data, (data.shape[0], data.type.num_elems // max(data.shape[0], 1)))
    params = MatrixMultiplyParams(transpose_b=True)
    return plain_value(view.add("matrix_multiply", params, [flat, weights]))
