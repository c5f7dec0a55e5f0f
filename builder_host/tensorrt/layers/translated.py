"""Layers that the ONNX importer knows already: they become a node in memory and take its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.layers.base import ILayer, required
from planformat.datatypes import DataType as PlanType
from runtime_edge.tensorrt.types import PLAN_TYPES, DataType

_OPSET = 21


def through_onnx(
    net: Network, op_type: str, xs: Sequence[Tensor | None], name: str, **attributes: Any
) -> list[Tensor]:
    """What the ONNX importer makes of an operator of opset 21 on tensors of a network.

    Args:
        net: receives the layers.
        op_type: of the domain ai.onnx.
        xs: inputs; None where one is left out.
        name: for messages, and the base of the layers' names.
        attributes: of the node.

    Raises:
        NetworkError: the operator's rules are broken.
    """
    import onnx

    from builder_host.importers.onnx.node import Node
    from builder_host.importers.onnx.registry import find_rule
    from builder_host.importers.onnx.weights import TensorReader

    version = onnx.defs.get_schema(op_type, _OPSET, "").since_version
    rule = find_rule("", op_type, version)
    if rule is None:
        raise NetworkError(f"'{name}': the ONNX importer has no {op_type} of version {version}")
    inputs = ["" if x is None else x.name for x in xs]
    proto = onnx.helper.make_node(op_type, inputs, [name], name=name, **attributes)
    reader = TensorReader(None)
    node = Node(proto, version, f"'{name}'", xs, net, reader, lambda wanted: wanted, (True,))
    found = rule.translate(node)
    outputs = [found] if isinstance(found, Tensor) else list(found)  # type: ignore[arg-type]
    return [tensor for tensor in outputs if isinstance(tensor, Tensor)]


@dataclass(eq=False, kw_only=True)
class IEinsumLayer(ILayer):
    """A sum of products by an equation such as `bij,bjk->bik`."""

    equation: str

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add transposes, products and reductions."""
        if shift:
            raise NetworkError(f"'{self.name}': add_einsum needs a network with EXPLICIT_BATCH")
        return through_onnx(net, "Einsum", xs, self.name, equation=self.equation)


@dataclass(eq=False, kw_only=True)
class IQuantizeLayer(ILayer):
    """round(x / scale), saturated; one scale, or one per slice of `axis`.

    Input 2, if given, is the zero point, which must be 0.
    """

    axis: int = -1
    to_type: DataType = DataType.INT8

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the arithmetic, which later passes recognise."""
        x, scale = required(xs, 0, self), required(xs, 1, self)
        zero = _zero_point(net, xs, scale, PLAN_TYPES[self.to_type], self)
        return through_onnx(
            net, "QuantizeLinear", [x, scale, zero], self.name, axis=_axis(self, x, shift)
        )


@dataclass(eq=False, kw_only=True)
class IDequantizeLayer(ILayer):
    """x * scale; one scale, or one per slice of `axis`."""

    axis: int = -1
    to_type: DataType = DataType.FLOAT

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the arithmetic, which later passes recognise."""
        x, scale = required(xs, 0, self), required(xs, 1, self)
        zero = _zero_point(net, xs, scale, x.dtype, self)
        wanted = PLAN_TYPES[self.to_type]
        if scale.dtype is not wanted:
            scale = net.add_cast(scale, wanted, name=f"{self.name}.scale").output
        return through_onnx(
            net, "DequantizeLinear", [x, scale, zero], self.name, axis=_axis(self, x, shift)
        )


def _axis(layer: IQuantizeLayer | IDequantizeLayer, x: Tensor, shift: int) -> int:
    """The axis of scales; -1, the API's default, is no axis: then there is one scale."""
    return layer.axis + shift if layer.axis >= 0 else x.type.rank - 1


def _zero_point(
    net: Network, xs: list[Tensor | None], scale: Tensor, dtype: PlanType, layer: ILayer
) -> Tensor:
    given = xs[2] if len(xs) > 2 else None
    if given is not None and (given.values is None or given.values.any()):
        raise NetworkError(
            f"'{layer.name}': the zero point must be 0, as in TensorRT; shift the data before"
        )
    kinds = {PlanType.INT8: np.int8, PlanType.UINT8: np.uint8}
    if dtype not in kinds:
        raise NetworkError(f"'{layer.name}': {dtype.text} is not supported; one of i8, u8")
    return net.add_constant(np.zeros(scale.shape, kinds[dtype]), f"{layer.name}.zero")
