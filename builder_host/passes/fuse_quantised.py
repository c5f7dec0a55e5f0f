"""dequantise -> layer becomes a layer of integers; quantise moves up through what moves values.

A model with Q/DQ nodes (or QLinear operators, which import as such) computes in real numbers
between rounding steps. Products of two dequantised tensors become products of the integers, with
scales and zero points in their epilogue:

    sum (x - zx)(w - zw) = sum x w' - zx sum w'      w' = w - zw, which must fit INT8

so that kernels see zero point 0; padding becomes a layer of its own, which pads with zx.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.expressions import Binary, Expr, Input, evaluate, is_rounded
from builder_host.network.editing import bypass_layer, insert_before, remove_layer
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.network.tensor_type import TensorType
from builder_host.passes.expression_rewrite import affine_parts
from builder_host.passes.quantise import PRODUCTS
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

_MAX_SUM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Quantised:
    """An 8-bit tensor behind a real one: real = (integers - zero) * scale, both broadcast."""

    integers: Tensor
    scale: Array
    zero: Array

    @property
    def is_per_tensor(self) -> bool:
        return self.scale.size == 1 and self.zero.size == 1

    def agrees(self, other: _Quantised) -> bool:
        """Whether both map integers to the same numbers."""
        return (
            self.integers.dtype is other.integers.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )


def run(network: Network) -> int:
    """Rewrite until nothing changes; returns the number of rewrites."""
    total = 0
    while True:
        edits = sum(_move_up(network, layer) for layer in reversed(list(network.layers)))
        if not edits:
            break
        total += edits
    for layer in list(network.layers):
        total += int(layer.kind in PRODUCTS and _to_integers(network, layer))
    _remove_unread(network)
    return total


# --- quantise moves up -------------------------------------------------------------------------


def _move_up(network: Network, layer: Layer) -> int:
    """Quantising behind a layer that moves values becomes quantising before it."""
    if layer not in network.layers or not _is_quantising(layer):
        return 0
    source = layer.inputs[0]
    mover = source.producer
    found = _dequantised(source)
    if found is not None and found.agrees(_target(layer)):
        return int(bypass_layer(network, layer, found.integers))
    if mover is None or not _moves(mover) or source in network.outputs:
        return 0
    if network.readers_of(source) != [layer] or any(t.is_constant for t in mover.inputs):
        return 0
    copies = []
    for tensor in mover.inputs:
        twin = insert_before(
            network,
            mover,
            "pointwise",
            layer.params,
            [tensor, *layer.inputs[1:]],
            f"{layer.name}.moved",
            origin=layer.origin,
        )
        copies.append(twin.output)
    mover.inputs = copies
    mover.outputs[0].type = TensorType(source.shape, layer.output.dtype)
    if not bypass_layer(network, layer, source):
        raise RuntimeError(f"layer '{layer.name}' could not be bypassed")
    return 1


def _moves(layer: Layer) -> bool:
    if layer.epilogue is not None:
        return False
    if layer.kind == "pooling":
        return bool(layer.params.mode == "max")
    return layer.kind in ("concatenation", "reshape", "transpose")


def _is_quantising(layer: Layer) -> bool:
    """A pointwise layer that rounds a float tensor to 8 bits with one scale and zero point."""
    return (
        layer.kind == "pointwise"
        and layer.epilogue is None
        and layer.output.dtype in EIGHT_BITS
        and layer.inputs[0].dtype is DataType.FLOAT32
        and is_rounded(layer.params.expr)
        and all(t.values is not None and t.type.num_elems == 1 for t in layer.inputs[1:])
        and layer.inputs[0].shape == layer.output.shape
    )


def _target(layer: Layer) -> _Quantised:
    """Scale and zero point of a quantising layer, as its importer writes it."""
    scale = np.asarray(layer.inputs[1].values, dtype=np.float64).reshape(-1)
    zero = np.zeros(1)
    if len(layer.inputs) > 2:
        zero = np.asarray(layer.inputs[2].values, dtype=np.float64).reshape(-1)
    return _Quantised(layer.output, scale, zero)


def _dequantised(tensor: Tensor) -> _Quantised | None:
    """What a tensor is the affine real value of."""
    layer = tensor.producer
    if layer is None or layer.kind != "pointwise" or layer.epilogue is not None:
        return None
    integers = layer.inputs[0]
    if integers.dtype not in EIGHT_BITS or tensor.dtype is not DataType.FLOAT32:
        return None
    if integers.shape != tensor.shape or not all(t.is_constant for t in layer.inputs[1:]):
        return None
    parts = affine_parts(layer.params.expr, 0)
    if parts is None:
        return None
    known = [np.asarray(t.values, dtype=np.float64) for t in layer.inputs[1:]]
    scale, shift = (np.asarray(evaluate(p, [np.zeros(()), *known]), np.float64) for p in parts)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    return _Quantised(integers, _squeezed(scale), _squeezed(np.rint(-shift / scale)))


def _squeezed(values: Array) -> Array:
    return values.reshape(-1) if values.size == 1 else values


# --- products of integers ----------------------------------------------------------------------


def _to_integers(network: Network, layer: Layer) -> bool:
    """One product; False where scales, zero points or types do not allow it."""
    own = layer.inputs
    if layer.epilogue is not None or len(own) > 3:
        return False
    x, w = _dequantised(own[0]), _dequantised(own[1])
    if x is None or w is None or x.integers.is_constant or not x.is_per_tensor:
        return False
    if w.integers.values is None or (len(own) == 3 and own[2].values is None):
        return False
    matrix = _weights(layer, w)
    if matrix is None:
        return False
    weights, w_scale = matrix
    zero = float(x.zero.item())
    reduced = tuple(range(1, weights.ndim))
    if np.abs(weights).sum(axis=reduced).max(initial=0) * 255 > _MAX_SUM:
        return False
    if layer.kind == "matrix_multiply":
        layer.kind, layer.params = "fully_connected", FullyConnectedParams()
    factor = w_scale * x.scale.item()
    shift = -zero * weights.sum(axis=reduced)
    if len(own) == 3:
        bias = np.asarray(own[2].values, dtype=np.float64) / factor
        whole = np.rint(bias)
        is_whole = np.abs(bias - whole) <= np.abs(bias) * 2.0**-20 + 1e-6
        shift = shift + np.where(is_whole, whole, bias)
    source = _padded(network, layer, x.integers, zero)
    trailing = (1,) * (layer.output.type.rank - 2)
    integers = network.add_constant(weights.astype(np.int8), f"{w.integers.name}.integers")
    operands = [integers]
    expr: Expr = Input(0)
    if shift.any():
        operands.append(_operand(network, shift, trailing, f"{layer.name}.shift"))
        expr = Binary("add", expr, Input(len(operands) - 1))
    operands.append(_operand(network, factor, trailing, f"{layer.name}.scale"))
    expr = Binary("mul", expr, Input(len(operands) - 1))
    layer.inputs = [source, *operands]
    layer.epilogue = Epilogue(expr, len(operands) - 1)
    return True


def _operand(network: Network, values: Array, trailing: tuple[int, ...], name: str) -> Tensor:
    return network.add_constant(values.astype(np.float32).reshape(-1, *trailing), name)


def _weights(layer: Layer, w: _Quantised) -> tuple[Array, Array] | None:
    """Integers [K,...] around zero and scales [K]; None where they do not fit."""
    values = np.asarray(w.integers.values, dtype=np.float64)
    is_product = layer.kind == "matrix_multiply"
    if is_product and (values.ndim, layer.inputs[0].type.rank) != (2, 2):
        return None
    if is_product and layer.params.transpose_a:
        return None
    try:
        scale = np.broadcast_to(w.scale, values.shape)
        centred = values - np.broadcast_to(w.zero, values.shape)
    except ValueError:
        return None
    if is_product and not layer.params.transpose_b:
        scale, centred = scale.T, centred.T
    flat = scale.reshape(scale.shape[0], -1)
    if (flat != flat[:, :1]).any() or centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        return None
    return centred.astype(np.int64), flat[:, 0].copy()


def _padded(network: Network, layer: Layer, x: Tensor, zero: float) -> Tensor:
    """The integers, padded with their zero point where the layer would pad with 0."""
    if layer.kind != "convolution" or zero == 0.0:
        return x
    begin, end = layer.params.pads_begin, layer.params.pads_end
    if not any((*begin, *end)):
        return x
    none = (0,) * len(begin)
    params = PadParams((0, 0, *begin), (0, 0, *end), "constant", zero)
    pad = insert_before(network, layer, "pad", params, [x], f"{layer.name}.padded")
    layer.params = replace(layer.params, pads_begin=none, pads_end=none)
    return pad.output


def _remove_unread(network: Network) -> None:
    """Take out dequantising layers that nobody reads any more."""
    for layer in reversed(list(network.layers)):
        if layer.kind != "pointwise" or layer.inputs[0].dtype not in EIGHT_BITS:
            continue
        try:
            remove_layer(network, layer)
        except NetworkError:  # it is still read
            continue
