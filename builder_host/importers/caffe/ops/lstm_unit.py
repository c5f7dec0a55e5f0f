"""LSTMUnit: one step of an LSTM whose gates are summed already; the part that Caffe unrolls."""

from __future__ import annotations

from builder_host.expressions import Binary, Const, Expr, Input, Select, Unary
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.slice import SliceParams

TYPES = ("LSTMUnit",)


def convert(layer: CaffeLayer) -> None:
    """c[1,N,K], gates[1,N,4K] in the order i, f, o, g, cont[1,N] -> c, h[1,N,K]."""
    layer.require_bottoms(3)
    cell, gates, cont = layer.bottoms
    if len(cell.shape) != 3 or cell.shape[0] != 1:
        raise LayerProblem(f"the first bottom {shape_text(cell)} must be 1xNxK")
    batch, size = cell.shape[1:]
    if gates.shape != (1, batch, 4 * size) or cont.shape != (1, batch):
        raise LayerProblem(
            f"bottoms {shape_text(gates)} and {shape_text(cont)} do not fit a cell of "
            f"{shape_text(cell)}; they must be 1x{batch}x{4 * size} and 1x{batch}"
        )
    parts = [
        layer.add(
            "slice",
            SliceParams((0, 0, number * size), (1, batch, size), (1, 1, 1)),
            [gates],
            f"gate{number}",
        )
        for number in range(4)
    ]
    factor = layer.reshaped(cont, (1, batch, 1), "cont")
    input_gate, forget_gate, candidate = Input(0), Input(1), Input(2)
    kept = Binary("mul", Binary("mul", Input(4), Unary("sigmoid", forget_gate)), Input(3))
    is_cut = Binary("eq", Input(4), Const(0.0))
    new: Expr = Binary(
        "add",
        Select(is_cut, Const(0.0), kept),
        Binary("mul", Unary("sigmoid", input_gate), Unary("tanh", candidate)),
    )
    inputs = [parts[0], parts[1], parts[3], cell, factor]
    made = layer.emit("pointwise", PointwiseParams(new), inputs)
    output = Binary("mul", Unary("sigmoid", Input(0)), Unary("tanh", Input(1)))
    layer.emit("pointwise", PointwiseParams(output), [parts[2], made], top=1)
