"""pad -> convolution or pooling becomes their own padding, where that is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builder_host.errors import NetworkError
from builder_host.expressions import Binary, Const, Expr, Select, Unary
from builder_host.network.editing import update_layer
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Layer, Network, Tensor


def run(network: Network) -> int:
    """Fold zero padding into convolutions and average pooling, harmless padding into maximum.

    The pad layer itself goes when nobody else reads it.

    Returns:
        Number of layers that do their own padding now.
    """
    folded = 0
    for layer in list(network.layers):
        pad = layer.inputs[0].producer
        if layer.kind not in ("convolution", "pooling") or pad is None or pad.kind != "pad":
            continue
        if pad.params.mode == "constant" and _is_spatial(pad.params) and _fold(network, layer, pad):
            folded += 1
            if pad.output not in network.outputs and not network.readers_of(pad.output):
                network.layers.remove(pad)
    return folded


def _is_spatial(params: PadParams) -> bool:
    begin, end = params.pads_begin, params.pads_end
    return not any((*begin[:2], *end[:2])) and all(p >= 0 for p in (*begin, *end))


def _fold(network: Network, layer: Layer, pad: Layer) -> bool:
    begin = tuple(
        a + b for a, b in zip(layer.params.pads_begin, pad.params.pads_begin[2:], strict=True)
    )
    end = tuple(a + b for a, b in zip(layer.params.pads_end, pad.params.pads_end[2:], strict=True))
    params = replace(layer.params, pads_begin=begin, pads_end=end)
    if layer.kind == "convolution":
        if pad.params.value != 0:
            return False
    elif not _is_same_pooling(layer.params, pad):
        return False
    elif layer.params.mode == "average":
        params = replace(params, count_include_pad=True)
    try:
        update_layer(network, layer, params=params, inputs=[pad.inputs[0], *layer.inputs[1:]])
    except NetworkError:  # a window would lie in the padding alone
        return False
    return True


def _is_same_pooling(params: PoolingParams, pad: Layer) -> bool:
    if params.mode == "max":
        lowest = float(np.finfo(np.float32).min)
        if pad.params.value <= lowest:
            return True
        return bool(pad.params.value == 0) and is_never_negative(pad.inputs[0])
    # the divisor counts the padded cells; own padding that does not count cannot be told apart
    own = any((*params.pads_begin, *params.pads_end))
    return bool(pad.params.value == 0) and (params.count_include_pad or not own)


def is_never_negative(tensor: Tensor) -> bool:
    """Whether all elements are provably at least 0."""
    layer = tensor.producer
    if tensor.values is not None:
        return bool(np.all(tensor.values >= 0))
    if layer is None:
        return False
    if layer.epilogue is not None:
        return _is_expr_never_negative(layer.epilogue.expr)
    if layer.kind == "pointwise":
        return _is_expr_never_negative(layer.params.expr)
    if layer.kind == "softmax":
        return not layer.params.log
    if layer.kind in ("pooling", "reshape", "transpose", "slice"):
        return is_never_negative(layer.inputs[0])
    if layer.kind == "concatenation":
        return all(is_never_negative(t) for t in layer.inputs)
    return False


def _is_expr_never_negative(expr: Expr) -> bool:
    match expr:
        case Const(value=value):
            return value >= 0
        case Unary(op=op):
            return op in ("abs", "exp", "sqrt", "sigmoid", "softplus")
        case Binary(op="max", a=a, b=b):
            return _is_expr_never_negative(a) or _is_expr_never_negative(b)
        case Binary(op="min" | "add" | "mul", a=a, b=b):
            return _is_expr_never_negative(a) and _is_expr_never_negative(b)
        case Select(a=a, b=b):
            return _is_expr_never_negative(a) and _is_expr_never_negative(b)
        case _:
            return False
