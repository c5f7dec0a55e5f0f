"""float32 layers -> INT8 layers, from the dynamic range of each tensor. Runs after all passes.

A *group* is a set of tensors that must share one scale because the layers between them only move
values (concatenation, maximum pooling, slices, reshapes). A group is stored in 8 bits when a layer
computed in INT8 reads it. What reads real numbers gets them back through an expression, or through
a pointwise layer where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Expr, Input, substitute
from builder_host.network.editing import check_network, insert_before
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.tensor_type import TensorType
from builder_host.passes.channels import channel_axis
from builder_host.passes.fold_padding import is_never_negative
from builder_host.passes.quantised_expression import (
    LEVELS,
    dequantised,
    fold_factor,
    quantised,
    quantised_values,
    with_sum_scale,
)
from builder_host.passes.quantised_weights import quantised_weights
from planformat.datatypes import DataType

Array = npt.NDArray[Any]

_F32 = DataType.FLOAT32
PRODUCTS = frozenset({"convolution", "fully_connected", "matrix_multiply"})
_MOVES = frozenset({"concatenation", "slice", "reshape", "transpose"})
_MAX_SUM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What the pass did.

    Attributes:
        layers: names of the layers computed in INT8, in order.
        scales: of the tensors stored in 8 bits: real value of one step.
        without_range: tensors that an INT8 layer would have read, had they had a range.
    """

    layers: tuple[str, ...]
    scales: Mapping[str, float]
    without_range: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    tensors: list[Tensor] = field(default_factory=list)
    dtype: DataType = DataType.INT8
    scale: float = 0.0


def can_quantise(layer: Layer) -> bool:
    """Whether a layer can be computed in INT8: constant float32 weights, sums that fit int32."""
    if layer.kind not in PRODUCTS or len(layer.own_inputs) != 2:
        return False
    x, w = layer.own_inputs
    if x.is_constant or x.dtype is not _F32 or w.values is None or w.dtype is not _F32:
        return False
    if w.type.rank < 2 or not np.isfinite(w.values).all():
        return False
    per_output = w.type.num_elems // max(1, _num_outputs(layer))
    return per_output * 255 * 127 <= _MAX_SUM


def quantisable_layers(network: Network) -> list[Layer]:
    """Layers that `run` can compute in INT8, in order."""
    return [layer for layer in network.layers if can_quantise(layer)]


def run(
    network: Network,
    ranges: Mapping[str, float],
    layers: Collection[Layer],
    *,
    allows_unsigned: bool,
    wide_tensors: Collection[str] = (),
) -> Quantisation:
    """Quantise layers in place.

    Args:
        network: after `run_passes`, in float32.
        ranges: largest magnitude by any name of a tensor; tensors without one stay float.
        layers: to be computed in INT8 where their input has a range.
        allows_unsigned: store tensors that are never negative as UINT8 (255 steps) instead of
            INT8 (127 steps).
        wide_tensors: names of tensors that must not be stored in 8 bits.

    Returns:
        What was done; the network is valid.
    """
    return _Quantiser(network, ranges, layers, allows_unsigned, wide_tensors).run()


class _Quantiser:
    def __init__(
        self,
        network: Network,
        ranges: Mapping[str, float],
        layers: Collection[Layer],
        allows_unsigned: bool,
        wide_tensors: Collection[str],
    ) -> None:
        self.network = network
        self.ranges = ranges
        self.allows_unsigned = allows_unsigned
        self.wide = frozenset(wide_tensors)
        self.groups = _groups(network)
        self.stored: dict[Tensor, _Group] = {}
        self.real: dict[Tensor, Tensor] = {}
        self.without_range: list[str] = []
        self.selected = {y for y in layers if can_quantise(y) and self._store(y.inputs[0])}

    def run(self) -> Quantisation:
        """Rewrite layer by layer, in order, so that real copies stand before their readers."""
        names = tuple(y.name for y in self.network.layers if y in self.selected)
        layers = list(self.network.layers)
        for tensor in list(self.network.inputs):
            if tensor in self.stored:
                self._quantise_copy(tensor)
        for layer in layers:
            self._rewrite(layer)
        check_network(self.network)
        scales = {t.name: group.scale for t, group in self.stored.items() if not t.is_constant}
        return Quantisation(names, scales, tuple(dict.fromkeys(self.without_range)))

    # --- what is stored in 8 bits ------------------------------------------------------------

    def _store(self, tensor: Tensor) -> bool:
        """Decide a tensor's group; whether it is stored in 8 bits."""
        if tensor in self.stored:
            return True
        members = self.groups.get(tensor, [tensor])
        found = [self._range(t) for t in members]
        known = [r for r in found if r is not None]
        largest = max(known, default=0.0)
        if not known:
            self.without_range.append(tensor.name)
        if not 0.0 < largest < math.inf or any(self._must_stay(t) for t in members):
            return False
        is_unsigned = self.allows_unsigned and all(is_never_negative(t) for t in members)
        dtype = DataType.UINT8 if is_unsigned else DataType.INT8
        group = _Group(list(members), dtype, largest / LEVELS[dtype][1])
        self.stored.update(dict.fromkeys(members, group))
        return True

    def _range(self, tensor: Tensor) -> float | None:
        if tensor.values is not None:
            return float(np.abs(tensor.values).max(initial=0.0))
        names = self.network.names_of(tensor)
        return next((self.ranges[name] for name in names if name in self.ranges), None)

    def _must_stay(self, tensor: Tensor) -> bool:
        if tensor.dtype is not _F32 or tensor.name in self.wide:
            return True
        return tensor in self.network.outputs

    # --- rewriting ---------------------------------------------------------------------------

    def _rewrite(self, layer: Layer) -> None:
        if _moves_values(layer):
            self._rewrite_move(layer)
        elif layer in self.selected:
            self._rewrite_product(layer)
        elif layer.kind == "pointwise" and layer.epilogue is None:
            self._rewrite_pointwise(layer)
        elif layer.kind == "pooling" and layer.inputs[0] in self.stored:
            self._rewrite_average(layer)
        else:
            layer.inputs = [self._as_real(t, layer) for t in layer.inputs]
            for tensor in layer.outputs:
                if tensor in self.stored:
                    self._quantise_copy(tensor)

    def _rewrite_move(self, layer: Layer) -> None:
        group = self.stored.get(layer.output)
        if group is None:
            layer.inputs = [self._as_real(t, layer) for t in layer.inputs]
            return
        layer.inputs = [
            self._constant(t, group) if t.is_constant and t in self.stored else t
            for t in layer.inputs
        ]
        _retype(layer.output, group.dtype)

    def _rewrite_product(self, layer: Layer) -> None:
        x, w = layer.own_inputs
        group = self.stored[x]
        scales, integers = quantised_weights(layer)
        weights = self.network.add_constant(integers, f"{w.name}.int8")
        before: Expr = layer.epilogue.expr if layer.epilogue else Input(0)
        combined = (scales * group.scale).astype(np.float32)
        trailing = layer.output.type.rank - 1 - channel_axis(layer)
        combined = combined.reshape(-1, *(1,) * trailing)
        factors = self.network.add_constant(combined, f"{w.name}.scale")
        expr = with_sum_scale(before, 1)
        operands = [factors, *layer.operands]
        self._finish(layer, [x, weights], expr, operands)

    def _rewrite_average(self, layer: Layer) -> None:
        group = self.stored[layer.inputs[0]]
        before: Expr = layer.epilogue.expr if layer.epilogue else Input(0)
        others = [Input(i + 1) for i in range(len(layer.operands))]
        expr = substitute(before, [dequantised(Input(0), group.scale), *others])
        self._finish(layer, layer.own_inputs, expr, layer.operands)

    def _finish(self, layer: Layer, own: list[Tensor], expr: Expr, operands: list[Tensor]) -> None:
        """Epilogue that reads 8-bit operands and stores what the output's group wants."""
        places: list[Expr] = [Input(0)]
        for number, tensor in enumerate(operands, start=1):
            group = self.stored.get(tensor)
            is_read = group is not None and not tensor.is_constant
            places.append(
                dequantised(Input(number), group.scale) if group and is_read else Input(number)
            )
        expr = substitute(expr, places)
        target = self.stored.get(layer.output)
        if target is not None:
            constants = [t if t.is_constant else None for t in operands]
            expr, factors = fold_factor(expr, 1.0 / target.scale, constants)
            operands = [
                self._scaled_constant(t, factors[i]) if i in factors else t
                for i, t in enumerate(operands, start=1)
            ]
            expr = quantised(expr, 1.0, target.dtype)
            _retype(layer.output, target.dtype)
        layer.inputs = [*own, *operands]
        layer.epilogue = Epilogue(expr, len(operands))

    def _scaled_constant(self, tensor: Tensor, factor: float) -> Tensor:
        values = np.asarray(tensor.values, dtype=np.float64) * factor
        return self.network.add_constant(values.astype(np.float32), f"{tensor.name}.scaled")

    def _rewrite_pointwise(self, layer: Layer) -> None:
        target = self.stored.get(layer.output)
        read = {t for t in layer.inputs if t in self.stored and not t.is_constant}
        if target is None and not read:
            return
        places = [
            dequantised(Input(i), self.stored[t].scale) if t in read else Input(i)
            for i, t in enumerate(layer.inputs)
        ]
        expr = substitute(layer.params.expr, places)
        if target is not None:
            expr, _ = fold_factor(expr, 1.0 / target.scale, [])
            expr = quantised(expr, 1.0, target.dtype)
            _retype(layer.output, target.dtype)
        layer.params = PointwiseParams(expr, layer.output.dtype)

    # --- borders -----------------------------------------------------------------------------

    def _constant(self, tensor: Tensor, group: _Group) -> Tensor:
        values = quantised_values(np.asarray(tensor.values), group.scale, group.dtype)
        return self.network.add_constant(values, f"{tensor.name}.{group.dtype.text}")

    def _as_real(self, tensor: Tensor, reader: Layer) -> Tensor:
        """The float32 tensor behind one that is stored in 8 bits; made once, before `reader`."""
        group = self.stored.get(tensor)
        if group is None or tensor.is_constant:
            return tensor
        if tensor not in self.real:
            layer = insert_before(
                self.network,
                reader,
                "pointwise",
                PointwiseParams(dequantised(Input(0), group.scale), _F32),
                [tensor],
                f"{tensor.name}.real",
            )
            self.real[tensor] = layer.output
        return self.real[tensor]

    def _quantise_copy(self, tensor: Tensor) -> None:
        """A tensor that cannot be written in 8 bits stays float32; a copy is for INT8 readers."""
        group = self.stored.pop(tensor)
        users = [y for y in self.network.layers if tensor in y.own_inputs and self._needs(y)]
        layer = insert_before(
            self.network,
            users[0],
            "pointwise",
            PointwiseParams(quantised(Input(0), group.scale, group.dtype), group.dtype),
            [tensor],
            f"{tensor.name}.{group.dtype.text}",
        )
        self.stored[layer.output] = group
        for user in users:
            own = [layer.output if t is tensor else t for t in user.own_inputs]
            user.inputs = [*own, *user.operands]

    def _needs(self, layer: Layer) -> bool:
        """Whether a layer takes 8-bit values only."""
        return layer in self.selected or _moves_values(layer)


def _moves_values(layer: Layer) -> bool:
    """Whether the outputs hold input values only, unchanged, so that scales are shared."""
    if layer.epilogue is not None:
        return False
    if layer.kind == "pooling":
        return bool(layer.params.mode == "max")
    return layer.kind in _MOVES


def _groups(network: Network) -> dict[Tensor, list[Tensor]]:
    """Tensors by the group they share values with; alone in it where nothing moves them."""
    groups: dict[Tensor, list[Tensor]] = {}
    for layer in network.layers:
        if not _moves_values(layer):
            continue
        joined: dict[Tensor, None] = {}
        for tensor in [*layer.inputs, *layer.outputs]:
            joined.update(dict.fromkeys(groups.get(tensor, [tensor])))
        members = list(joined)
        for tensor in members:
            groups[tensor] = members
    return groups


def _num_outputs(layer: Layer) -> int:
    """Output channels that the weights serve."""
    return layer.output.shape[channel_axis(layer)]


def _retype(tensor: Tensor, dtype: DataType) -> None:
    tensor.type = TensorType(tensor.shape, dtype)
