"""Evaluation of a network in float64 by the references of its layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.expressions import (
    Expr,
    Input,
    evaluate_single,
    is_rounded,
    keeps_integers,
)
from builder_host.network import layers as kinds
from builder_host.network.network import Layer, Network, Tensor
from builder_host.network.pointwise_kind import as_reference, evaluate_expression
from builder_host.network.rules import EIGHT_BITS
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


# References compute in int64; a tensor of fewer bits wraps.
_NARROW_INTEGERS = {
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT16: np.int16,
    DataType.UINT16: np.uint16,
    DataType.INT32: np.int32,
    DataType.UINT32: np.uint32,
}


def evaluate_network(
    network: Network,
    inputs: Mapping[str, Array],
    *,
    keep: Collection[Tensor] = (),
    rounds_storage: bool = False,
) -> dict[str, Array]:
    """Compute the outputs of a network.

    Args:
        network: in topological order.
        inputs: one array of exactly the declared shape per network input.
        keep: further tensors whose values are wanted.
        rounds_storage: round what each layer stores to its tensor's float type: what a plan with
            narrow tensors does, but for the rounding within a layer. Beyond the type's range is
            infinity.

    Returns:
        Values by tensor name of all outputs and kept tensors: float64, int64 or bool.

    Raises:
        NetworkError: an input is missing, unknown or of another shape.
    """
    values = _checked_inputs(network, inputs)
    wanted = [*network.outputs, *keep]
    last_use = {t: i for i, layer in enumerate(network.layers) for t in layer.inputs}
    kept = set(wanted)
    for number, layer in enumerate(network.layers):
        for tensor, value in zip(
            layer.outputs,
            evaluate_layer(layer, [_value(t, values) for t in layer.inputs]),
            strict=True,
        ):
            values[tensor] = _as_stored(value, tensor.dtype) if rounds_storage else value
        for tensor in set(layer.inputs):
            if last_use[tensor] == number and tensor not in kept:
                values.pop(tensor, None)
    return {t.name: _value(t, values) for t in wanted}


def _as_stored(values: Array, dtype: DataType) -> Array:
    """Float64 values that a tensor of this type can hold."""
    if not dtype.is_float or dtype is DataType.FLOAT64:
        return values
    with np.errstate(over="ignore"):
        if dtype is DataType.BFLOAT16:
            import ml_dtypes

            return values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        narrow = np.float16 if dtype is DataType.FLOAT16 else np.float32
        return values.astype(narrow).astype(np.float64)


def evaluate_layer(layer: Layer, inputs: list[Array]) -> list[Array]:
    """Outputs of one layer, epilogue included, for values in their reference class.

    Expressions that read or store 8-bit integers are evaluated in float32, as kernels do: a value
    on the edge between two integers then falls to the same side.

    Raises:
        NetworkError: the reference gives another shape than was inferred.
    """
    own = len(layer.own_inputs)
    with np.errstate(all="ignore"):
        if layer.kind == "pointwise" and _is_quantised(layer):
            wide = _evaluated(layer.params.expr, inputs, layer)
            kind = _numpy_kind(layer.outputs[0].dtype)
            outputs = [np.broadcast_to(as_reference(wide, kind), layer.outputs[0].shape)]
        else:
            outputs = kinds.definition(layer.kind).reference(layer.params, inputs[:own])
    outputs = [
        as_reference(value, _numpy_kind(tensor.dtype))
        if layer.epilogue is None and value.dtype.kind != _numpy_kind(tensor.dtype)
        else value
        for tensor, value in zip(layer.outputs, outputs, strict=True)
    ]
    if layer.epilogue is not None:
        value = _evaluated(layer.epilogue.expr, [outputs[0], *inputs[own:]], layer)
        outputs[0] = np.broadcast_to(
            as_reference(value, _numpy_kind(layer.outputs[0].dtype)), layer.outputs[0].shape
        )
    for number, (tensor, value) in enumerate(zip(layer.outputs, outputs, strict=True)):
        narrow = _NARROW_INTEGERS.get(tensor.dtype)
        if narrow is not None and value.size:
            outputs[number] = value.astype(narrow).astype(np.int64)
        if value.shape != tensor.shape:
            raise NetworkError(
                f"layer '{layer.name}': {layer.kind}: reference gave shape {value.shape}, "
                f"inferred was {tensor.shape}"
            )
    return outputs


def _is_quantised(layer: Layer) -> bool:
    """Whether a layer maps between 8-bit integers and real numbers, or rounds to the former."""
    if layer.kind == "pointwise":
        expr = layer.params.expr
    else:
        expr = layer.epilogue.expr if layer.epilogue else Input(0)
    if keeps_integers(expr):
        return False
    stored = layer.outputs[0].dtype
    reads = any(t.dtype in EIGHT_BITS for t in layer.inputs)
    return (stored in EIGHT_BITS and is_rounded(expr)) or (stored.is_float and reads)


def _evaluated(expr: Expr, operands: list[Array], layer: Layer) -> Array:
    if not _is_quantised(layer):
        return evaluate_expression(expr, operands)
    with np.errstate(all="ignore"):
        return np.asarray(evaluate_single(expr, [np.asarray(x, np.float32) for x in operands]))


def _checked_inputs(network: Network, inputs: Mapping[str, Array]) -> dict[Tensor, Array]:
    names = {t.name for t in network.inputs}
    unknown = sorted(set(inputs) - names)
    missing = sorted(names - set(inputs))
    if unknown or missing:
        raise NetworkError(
            f"network inputs are {sorted(names)}; missing {missing}, not known {unknown}"
        )
    values = {}
    for tensor in network.inputs:
        array = np.asarray(inputs[tensor.name])
        if array.shape != tensor.shape:
            raise NetworkError(
                f"input '{tensor.name}' has shape {array.shape}, the network takes {tensor.shape}"
            )
        values[tensor] = as_reference(array, _numpy_kind(tensor.dtype))
    return values


def constant_value(tensor: Tensor) -> Array:
    """Values of a constant in their reference class: float64, int64 or bool."""
    if tensor.values is None:
        raise NetworkError(f"tensor '{tensor.name}' is not a constant")
    return as_reference(tensor.values, _numpy_kind(tensor.dtype))


def _value(tensor: Tensor, values: Mapping[Tensor, Array]) -> Array:
    if tensor.values is not None:
        return constant_value(tensor)
    if tensor not in values:
        raise NetworkError(f"tensor '{tensor.name}' is read before any layer produces it")
    return values[tensor]


def _numpy_kind(dtype: DataType) -> str:
    if dtype is DataType.BOOL:
        return "b"
    return "f" if dtype.is_float else "i"
