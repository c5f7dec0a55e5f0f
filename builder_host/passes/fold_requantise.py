"""round(f(x) * k) in quantised layers -> round(f'(x)) with k inside f's constants."""

from __future__ import annotations

import numpy as np

from builder_host.expressions import Binary, Const, Expr, Unary
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.passes.expression_rewrite import simplify
from builder_host.passes.quantised_expression import fold_factor


def run(network: Network) -> int:
    """Fold the factors before rounding in epilogues and pointwise layers that read 8 bits.

    Literals and per-channel constants take them up, so that a value is scaled once.

    Returns:
        Number of layers that changed.
    """
    changed = 0
    for layer in network.layers:
        if not layer.inputs or layer.output.dtype not in EIGHT_BITS:
            continue
        if layer.epilogue is not None and layer.inputs[0].dtype in EIGHT_BITS:
            changed += _fold_epilogue(network, layer)
        elif layer.kind == "pointwise" and any(t.dtype in EIGHT_BITS for t in layer.inputs):
            expr, _ = _folded(simplify(layer.params.expr), [])
            if expr != layer.params.expr:
                layer.params = PointwiseParams(expr, layer.output.dtype)
                changed += 1
    return changed


def _fold_epilogue(network: Network, layer: Layer) -> int:
    assert layer.epilogue is not None
    operands = layer.operands
    constants = [t if t.is_constant else None for t in operands]
    expr, factors = _folded(simplify(layer.epilogue.expr), constants)
    if expr == layer.epilogue.expr and not factors:
        return 0
    scaled = [
        _scaled(network, t, factors[i]) if i in factors else t
        for i, t in enumerate(operands, start=1)
    ]
    layer.inputs = [*layer.own_inputs, *scaled]
    layer.epilogue = Epilogue(expr, len(scaled))
    return 1


def _scaled(network: Network, tensor: Tensor, factor: float) -> Tensor:
    values = np.asarray(tensor.values, dtype=np.float64) * factor
    return network.add_constant(values.astype(np.float32), f"{tensor.name}.scaled")


def _folded(expr: Expr, operands: list[Tensor | None]) -> tuple[Expr, dict[int, float]]:
    """The first `round(e * literal)` on the way down, its literal folded into e."""
    match expr:
        case Unary(op="round", x=Binary(op="mul", a=inner, b=Const(value=factor))) if factor > 0:
            moved, factors = fold_factor(inner, factor, operands)
            return Unary("round", moved), factors
        case Unary(op=op, x=x):
            inside, factors = _folded(x, operands)
            return Unary(op, inside), factors
        case Binary(op="add" | "max" | "min" as op, a=a, b=Const() as b):
            inside, factors = _folded(a, operands)
            return Binary(op, inside, b), factors
        case _:
            return expr, {}
