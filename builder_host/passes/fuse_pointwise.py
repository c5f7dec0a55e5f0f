"""pointwise -> pointwise with one consumer -> one pointwise."""

from __future__ import annotations

from builder_host.expressions import (
    Binary,
    Expr,
    Input,
    Select,
    Unary,
    children,
    is_rounded,
    keeps_integers,
    num_operations,
    substitute,
)
from builder_host.network.editing import remove_layer, update_layer
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Layer, Network, Tensor
from builder_host.network.pointwise_kind import is_boolean
from builder_host.network.rules import EIGHT_BITS
from builder_host.passes.expression_rewrite import compact, simplify
from planformat.datatypes import DataType

MAX_OPERATIONS = 64
MAX_INPUTS = 8
# Operations whose result modulo 2^n follows from their operands modulo 2^n.
_MODULAR = frozenset({"add", "sub", "mul", "neg", "bit_and", "bit_or", "bit_xor", "shift_left"})


def run(network: Network) -> int:
    """Fuse chains and trees, consumers later in order last; returns the number of fusions.

    A producer is fused when nobody else reads it, it has the shape of its consumer's output (so
    that nothing is computed twice), both work on one element type, and the result stays within
    64 operations and 8 inputs.
    """
    fusions = 0
    for layer in list(network.layers):
        if layer.kind == "pointwise" and layer.epilogue is None:
            while _fuse_one(network, layer):
                fusions += 1
    return fusions


def _fuse_one(network: Network, layer: Layer) -> bool:
    """Fuse one producer into a layer."""
    consumers = network.consumers()
    for tensor in layer.inputs:
        producer = tensor.producer
        if (
            producer is None
            or producer.kind != "pointwise"
            or producer.epilogue is not None
            or tensor.shape != layer.output.shape
            or tensor in network.outputs
            or consumers[tensor] != [layer]
            or not _types_agree(producer, layer)
        ):
            continue
        fused = fused_expression(producer, layer, tensor)
        if fused is None:
            continue
        expr, inputs = fused
        params = PointwiseParams(expr, layer.output.dtype)
        update_layer(network, layer, params=params, inputs=inputs)
        remove_layer(network, producer)
        return True
    return False


def fused_expression(
    producer: Layer, layer: Layer, tensor: Tensor
) -> tuple[Expr, list[Tensor]] | None:
    """Expression and inputs of both layers in one, or None when it grows too large."""
    inputs = [*layer.inputs, *producer.inputs]
    shifted = substitute(
        producer.params.expr, [Input(len(layer.inputs) + i) for i in range(len(producer.inputs))]
    )
    places: list[Expr] = [shifted if t is tensor else Input(i) for i, t in enumerate(layer.inputs)]
    expr = substitute(layer.params.expr, places)
    if num_operations(expr) > MAX_OPERATIONS:
        return None
    if tensor.dtype.is_float and all(t.dtype.is_float or t.dtype in EIGHT_BITS for t in inputs):
        expr = simplify(expr)
    # the fused tensor is no longer read; the producer's inputs give its shape
    inputs[inputs.index(tensor)] = inputs[len(layer.inputs)]
    expr, kept = compact(expr, inputs, layer.output.shape)
    return (expr, kept) if len(kept) <= MAX_INPUTS else None


def _is_narrow(dtype: DataType) -> bool:
    """Integers that kernels compute in more bits than they are stored in."""
    return not dtype.is_float and dtype.size_bytes < 8


def _may_wrap(expr: Expr) -> bool:
    return bool(_operations(expr) & (_MODULAR - {"bit_and", "bit_or"}))


def _operations(expr: Expr) -> frozenset[str]:
    own = frozenset({expr.op}) if isinstance(expr, Unary | Binary) else frozenset[str]()
    if isinstance(expr, Select):
        own = frozenset({"select"})
    return own.union(*(_operations(child) for child in children(expr)))


def _is_dequantising(layer: Layer) -> bool:
    """Whether 8-bit values are read as real numbers."""
    return layer.output.dtype is DataType.FLOAT32 and any(
        t.dtype in EIGHT_BITS for t in layer.inputs
    )


def _stores_reals(layer: Layer) -> bool:
    """Whether a layer computes in real numbers: its output is a float, or quantised anew."""
    return layer.output.dtype is DataType.FLOAT32 or is_rounded(layer.params.expr)


def _types_agree(producer: Layer, layer: Layer) -> bool:
    """One element type besides BOOL, and BOOL results come from comparisons or logic."""
    tensors = [*producer.inputs, *layer.inputs, producer.output, layer.output]
    others = {t.dtype for t in tensors if t.dtype is not DataType.BOOL}
    if _is_dequantising(producer) and _stores_reals(layer):
        others -= EIGHT_BITS
    if len(others) > 1:
        return False
    if not all(dtype.is_float for dtype in others) and not keeps_integers(producer.params.expr):
        return False  # the result is truncated in between
    if any(_is_narrow(dtype) for dtype in others) and _may_wrap(producer.params.expr):
        return _operations(layer.params.expr) <= _MODULAR  # else it needs the wrapped value
    return producer.output.dtype is not DataType.BOOL or is_boolean(producer.params.expr)
