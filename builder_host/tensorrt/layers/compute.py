"""Layers that compute element by element or over whole axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import (
    ActivationType,
    CumulativeOperation,
    ElementWiseOperation,
    MatrixOperation,
    ReduceOperation,
    ScaleMode,
    UnaryOperation,
)
from builder_host.tensorrt.layers.base import (
    ILayer,
    axes_of,
    known_ints,
    optional_weights,
    required,
    single_axis,
    weights_of,
)
from planformat.datatypes import DataType


@dataclass(eq=False, kw_only=True)
class IFullyConnectedLayer(ILayer):
    """Fully connected layer: the last three dimensions become one; output [.., K, 1, 1]."""

    num_output_channels: int
    kernel: Any
    bias: Any = None

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a fully connected layer and the two dimensions that its output keeps."""
        del shift
        x = required(xs, 0, self)
        front = x.shape[: max(x.type.rank - 3, 1)]
        if len(front) > 1:
            flat = (math.prod(front), math.prod(x.shape[len(front) :]))
            x = net.add_reshape(x, flat, name=f"{self.name}.rows").output
        layer = net.add_fully_connected(
            x,
            self.num_output_channels,
            weights_of(self.kernel, self),
            optional_weights(self.bias),
            name=self.name,
        )
        shape = (*front, self.num_output_channels, 1, 1)
        return net.add_reshape(layer.output, shape, name=f"{self.name}.shape").outputs


@dataclass(eq=False, kw_only=True)
class IActivationLayer(ILayer):
    """Activation."""

    type: ActivationType
    alpha: float | None = None
    beta: float | None = None

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add an activation."""
        del shift
        return net.add_activation(
            required(xs, 0, self), self.type.value, alpha=self.alpha, beta=self.beta, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class IParametricReLULayer(ILayer):
    """Leaky rectifier with slopes from a tensor."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a parametric rectifier."""
        del shift
        x, slopes = required(xs, 0, self), required(xs, 1, self)
        return net.add_parametric_relu(x, slopes, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ILRNLayer(ILayer):
    """Local response normalisation across channels."""

    window_size: int
    alpha: float
    beta: float
    k: float

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a normalisation."""
        del shift
        return net.add_lrn(
            required(xs, 0, self), self.window_size, self.alpha, self.beta, self.k, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class INormalizationLayer(ILayer):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes of a bit mask.

    With `num_groups` above 1 the channels (axis 1) are split into groups, each of which is
    normalised with the axes; scale and bias are then per group or per channel.
    """

    axes: int
    epsilon: float = 1e-5
    num_groups: int = 1
    compute_precision: Any = None

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the reductions and the arithmetic."""
        x, scale, bias = (required(xs, i, self) for i in range(3))
        if not x.type.rank == scale.type.rank == bias.type.rank:
            raise NetworkError(
                f"'{self.name}': scale {scale.type} and bias {bias.type} must have as many "
                f"dimensions as the input {x.type}, 1 where they repeat"
            )
        axes = [axis + shift for axis in axes_of(self.axes)]
        if self.num_groups == 1:
            return [self._affine(net, self._standardised(net, x, axes), scale, bias)]
        groups, rank = self.num_groups, x.type.rank
        if rank < 3 or groups < 1 or x.shape[1] % groups or axes != list(range(2, rank)):
            raise NetworkError(
                f"'{self.name}': num_groups={groups} needs channels in axis 1 that it divides and "
                f"all axes behind them; got {x.type} and axes {axes}"
            )
        wide = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
        grouped = net.add_reshape(x, wide, name=f"{self.name}.groups").output
        y = self._standardised(net, grouped, range(2, rank + 1))
        if scale.shape[1] != groups:
            y = net.add_reshape(y, x.shape, name=f"{self.name}.channels").output
            return [self._affine(net, y, scale, bias)]
        per_group = [
            net.add_reshape(t, (*t.shape, 1), name=f"{self.name}.{what}").output
            for t, what in ((scale, "scale"), (bias, "bias"))
        ]
        return net.add_reshape(self._affine(net, y, *per_group), x.shape, name=self.name).outputs

    def _standardised(self, net: Network, x: Tensor, axes: Any) -> Tensor:
        def pointwise(a: Tensor, b: Tensor | Any, op: str) -> Tensor:
            return net.add_elementwise(a, b, op, name=f"{self.name}.{op}").output

        centred = pointwise(x, net.add_reduce(x, "mean", axes, name=self.name).output, "sub")
        square = pointwise(centred, centred, "mul")
        variance = net.add_reduce(square, "mean", axes, name=self.name).output
        total = pointwise(variance, np.full((1,) * x.type.rank, self.epsilon), "add")
        return pointwise(centred, net.add_unary(total, "rsqrt", name=self.name).output, "mul")

    def _affine(self, net: Network, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return net.add_elementwise(
            net.add_elementwise(x, scale, "mul", name=self.name).output, bias, "add", name=self.name
        ).output


@dataclass(eq=False, kw_only=True)
class IScaleLayer(ILayer):
    """(x * scale + shift) ^ power."""

    mode: ScaleMode
    shift: Any = None
    scale: Any = None
    power: Any = None
    channel_axis: int = 1

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a scale."""
        mode: Any = self.mode.value
        coefficients = [optional_weights(w) for w in (self.shift, self.scale, self.power)]
        axis = 1 if shift else self.channel_axis
        x = required(xs, 0, self)
        return net.add_scale(x, mode, *coefficients, channel_axis=axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ISoftMaxLayer(ILayer):
    """Softmax over the axis of a bit mask; by default the third from the end, or the first."""

    axes: int = 0

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a softmax."""
        x = required(xs, 0, self)
        axis = single_axis(self.axes, self) + shift if self.axes else max(x.type.rank - 3, shift)
        return net.add_softmax(x, axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IRaggedSoftMaxLayer(ILayer):
    """Softmax of the first bounds[z] elements of row z of [Z, S]; the others become 0."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a softmax between two selections."""
        del shift
        x, bounds = required(xs, 0, self), required(xs, 1, self)
        return net.add_ragged_softmax(x, bounds, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IElementWiseLayer(ILayer):
    """An operation on two tensors."""

    op: ElementWiseOperation

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add an operation."""
        del shift
        a, b = same_integers(net, [required(xs, 0, self), required(xs, 1, self)])
        return net.add_elementwise(a, b, self.op.value, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IUnaryLayer(ILayer):
    """An operation on one tensor."""

    op: UnaryOperation

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add an operation."""
        del shift
        return net.add_unary(required(xs, 0, self), self.op.value, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ISelectLayer(ILayer):
    """One of two tensors by a condition."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a selection."""
        del shift
        condition, a, b = (required(xs, i, self) for i in range(3))
        return net.add_select(condition, a, b, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IReduceLayer(ILayer):
    """Reduction over the axes of a bit mask."""

    op: ReduceOperation
    axes: int
    keep_dims: bool

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a reduction."""
        axes = [axis + shift for axis in axes_of(self.axes)]
        return net.add_reduce(
            required(xs, 0, self), self.op.value, axes, keep_dims=self.keep_dims, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class ICumulativeLayer(ILayer):
    """Running sum along the axis that input 1 holds."""

    op: CumulativeOperation
    exclusive: bool
    reverse: bool

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a running sum."""
        axes = known_ints(xs, 1, self, "the axis") or ()
        if len(axes) != 1:
            raise NetworkError(f"'{self.name}': the axis must be one number, got {axes}")
        axis = axes[0] + shift if axes[0] >= 0 else axes[0]
        return net.add_cumulative(
            required(xs, 0, self),
            self.op.value,
            axis,
            exclusive=self.exclusive,
            reverse=self.reverse,
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IMatrixMultiplyLayer(ILayer):
    """Matrix product; a VECTOR side has one dimension less, and so has the result."""

    op0: MatrixOperation
    op1: MatrixOperation

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a product, with vectors as matrices of one row or column."""
        del shift
        a, b = required(xs, 0, self), required(xs, 1, self)
        if self.op0 is MatrixOperation.VECTOR:
            if not a.type.rank:
                raise NetworkError(f"'{self.name}': a VECTOR has a dimension, input 0 is a scalar")
            row = (*a.shape[:-1], 1, a.shape[-1])
            a = net.add_reshape(a, row, name=f"{self.name}.row").output
        if self.op1 is MatrixOperation.VECTOR:
            b = net.add_reshape(b, (*b.shape, 1), name=f"{self.name}.column").output
        y = net.add_matrix_multiply(
            a,
            b,
            transpose_a=self.op0 is MatrixOperation.TRANSPOSE,
            transpose_b=self.op1 is MatrixOperation.TRANSPOSE,
            name=self.name,
        ).output
        shape = list(y.shape)
        if self.op1 is MatrixOperation.VECTOR:
            del shape[-1]
        if self.op0 is MatrixOperation.VECTOR:
            del shape[len(y.shape) - 2]
        if tuple(shape) == y.shape:
            return [y]
        return net.add_reshape(y, tuple(shape), name=f"{self.name}.shape").outputs


@dataclass(eq=False, kw_only=True)
class IPluginV2Layer(ILayer):
    """A plugin of `builder_host.plugins`."""

    plugin: Any

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add the plugin."""
        del shift
        inputs = [required(xs, i, self) for i in range(len(xs))]
        return net.add_plugin(self.plugin, inputs, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IAssertionLayer(ILayer):
    """A condition that must hold; plans are fixed, so it must be known while building."""

    message: str

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Check the condition."""
        del net, shift
        values = known_ints(xs, 0, self, "the condition")
        if values is None or not all(values):
            raise NetworkError(f"'{self.name}': assertion failed: {self.message}")
        return []


def same_integers(net: Network, tensors: list[Tensor]) -> list[Tensor]:
    """Tensors of which known INT32 values beside INT64 ones are widened: shapes are INT64."""
    kinds = {t.dtype for t in tensors}
    if kinds != {DataType.INT32, DataType.INT64}:
        return tensors
    return [
        net.add_cast(t, DataType.INT64).output if t.dtype is DataType.INT32 and t.is_constant else t
        for t in tensors
    ]
