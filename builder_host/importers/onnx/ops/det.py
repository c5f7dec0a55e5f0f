"""Det: determinants of small matrices, expanded along their first rows."""

from __future__ import annotations

from builder_host.expressions import Binary, Expr, Input
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor

MAX_EXTENT = 4  # 24 products; larger ones need an elimination with pivots


@operator("Det", since=(11, 22))
def det(node: Node) -> Tensor:
    """Of the last two dimensions."""
    x = node.input(0)
    extent = x.shape[-1] if x.type.rank >= 2 else 0
    if extent != (x.shape[-2] if x.type.rank >= 2 else 1) or not 1 <= extent <= MAX_EXTENT:
        node.fail(f"square matrices of 1 to {MAX_EXTENT} rows are supported, got {x.type}")
    lead = x.shape[:-2]
    cells = []
    for row in range(extent):
        for column in range(extent):
            starts = (*(0 for _ in lead), row, column)
            cell = node.slice(x, starts, (*lead, 1, 1), (1,) * x.type.rank)
            cells.append(node.reshape(cell, lead))
    rows = list(range(extent))
    return node.pointwise(_expanded(rows, rows, extent), *cells)


def _expanded(rows: list[int], columns: list[int], extent: int) -> Expr:
    if len(rows) == 1:
        return Input(rows[0] * extent + columns[0])
    total: Expr | None = None
    for place, column in enumerate(columns):
        others = [c for c in columns if c != column]
        minor = _expanded(rows[1:], others, extent)
        term = Binary("mul", Input(rows[0] * extent + column), minor)
        sign = "sub" if place % 2 else "add"
        total = term if total is None else Binary(sign, total, term)
    assert total is not None
    return total
