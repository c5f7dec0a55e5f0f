"""`add_*` methods that compute: convolution, pooling, normalisation, pointwise, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.expressions import Expr
from builder_host.network.api import NetworkDoor, per_dim, positive_axis
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.layers.select import SelectParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.layers.unary import UnaryParams
from builder_host.network.padding_mode import PaddingMode, deconvolution_pads, window_extent
from planformat.datatypes import DataType

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]
Extents = int | Sequence[int]


class ComputeMethods(NetworkDoor):
    """Part of `Network`."""

    def add_convolution(
        self,
        x: Tensor,
        num_maps: int,
        kernel: Extents,
        weights: Array | Tensor,
        bias: Array | Tensor | None = None,
        *,
        strides: Extents = 1,
        pads: Extents = 0,
        pads_end: Extents | None = None,
        dilations: Extents = 1,
        groups: int = 1,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        name: str = "",
    ) -> Layer:
        """Cross-correlation of x[N,C,*S].

        Args:
            x: input.
            num_maps: output channels K.
            kernel: window, one number or one per spatial dimension.
            weights: [K,C/groups,*kernel], or an array with as many elements in that order.
            bias: [K] or None.
            strides: one number or one per spatial dimension.
            dilations: as strides.
            pads: before each spatial dimension, and after it unless pads_end is given.
            pads_end: after each spatial dimension.
            groups: input and output channels are split into so many independent parts.
            padding_mode: rule for pads and rounding.
            name: of the layer.

        Raises:
            NetworkError: shapes or counts do not fit.
        """
        spatial = x.type.rank - 2
        window = per_dim(kernel, spatial, "kernel")
        stride = per_dim(strides, spatial, "strides")
        dilation = per_dim(dilations, spatial, "dilations")
        begin, end = _pads(pads, pads_end, spatial)
        extents = [
            window_extent(
                x.shape[2 + i], window[i], stride[i], dilation[i], (begin[i], end[i]), padding_mode
            )
            for i in range(spatial)
        ]
        params = ConvolutionParams(
            stride,
            tuple(e.pad_begin for e in extents),
            tuple(e.pad_end for e in extents),
            dilation,
            groups,
        )
        shape = (num_maps, x.shape[1] // max(groups, 1), *window)
        return self._add_weighted("convolution", params, x, weights, shape, bias, num_maps, name)

    def add_deconvolution(
        self,
        x: Tensor,
        num_maps: int,
        kernel: Extents,
        weights: Array | Tensor,
        bias: Array | Tensor | None = None,
        *,
        strides: Extents = 1,
        pads: Extents = 0,
        pads_end: Extents | None = None,
        dilations: Extents = 1,
        output_padding: Extents = 0,
        groups: int = 1,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        name: str = "",
    ) -> Layer:
        """Transposed convolution; weights [C,K/groups,*kernel]; pads crop the output.

        The other arguments are those of `add_convolution`; output_padding extends the end.
        """
        spatial = x.type.rank - 2
        window = per_dim(kernel, spatial, "kernel")
        stride = per_dim(strides, spatial, "strides")
        dilation = per_dim(dilations, spatial, "dilations")
        begin, end = _pads(pads, pads_end, spatial)
        cropped = [
            deconvolution_pads(window[i], stride[i], dilation[i], (begin[i], end[i]), padding_mode)
            for i in range(spatial)
        ]
        params = DeconvolutionParams(
            stride,
            tuple(b for b, _ in cropped),
            tuple(e for _, e in cropped),
            dilation,
            per_dim(output_padding, spatial, "output_padding"),
            groups,
        )
        shape = (x.shape[1], num_maps // max(groups, 1), *window)
        return self._add_weighted("deconvolution", params, x, weights, shape, bias, num_maps, name)

    def add_fully_connected(
        self,
        x: Tensor,
        num_outputs: int,
        weights: Array | Tensor,
        bias: Array | Tensor | None = None,
        *,
        name: str = "",
    ) -> Layer:
        """y[N,K] = x·wᵀ + b; x is flattened after the batch to V; weights [K,V] row-major."""
        volume = int(np.prod(x.shape[1:], dtype=np.int64))
        return self._add_weighted(
            "fully_connected",
            FullyConnectedParams(),
            x,
            weights,
            (num_outputs, volume),
            bias,
            num_outputs,
            name,
        )

    def _add_weighted(
        self,
        kind: str,
        params: Any,
        x: Tensor,
        weights: Array | Tensor,
        shape: tuple[int, ...],
        bias: Array | Tensor | None,
        num_maps: int,
        name: str,
    ) -> Layer:
        label = name or kind
        inputs = [x, self._operand(weights, x, f"{label}.weights", shape)]
        if inputs[1].shape != shape:
            raise NetworkError(f"'{label}': weights have shape {inputs[1].shape}, expected {shape}")
        if bias is not None:
            inputs.append(self._operand(bias, x, f"{label}.bias", (num_maps,)))
        return self.add_layer(kind, params, inputs, name)

    def add_pooling(
        self,
        x: Tensor,
        mode: Literal["max", "average"],
        window: Extents,
        *,
        strides: Extents = 1,
        pads: Extents = 0,
        pads_end: Extents | None = None,
        dilations: Extents = 1,
        count_include_pad: bool = False,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        name: str = "",
    ) -> Layer:
        """Maximum or average over windows of x[N,C,*S].

        An average leaves padded cells out unless count_include_pad. What Caffe does is
        CAFFE_ROUND_UP with count_include_pad. The other arguments are those of add_convolution.
        """
        spatial = x.type.rank - 2
        size = per_dim(window, spatial, "window")
        stride = per_dim(strides, spatial, "strides")
        dilation = per_dim(dilations, spatial, "dilations")
        begin, end = _pads(pads, pads_end, spatial)
        extents = [
            window_extent(
                x.shape[2 + i],
                size[i],
                stride[i],
                dilation[i],
                (begin[i], end[i]),
                padding_mode,
                is_pooling=True,
            )
            for i in range(spatial)
        ]
        params = PoolingParams(
            mode,
            size,
            stride,
            tuple(e.pad_begin for e in extents),
            tuple(e.pad_end for e in extents),
            tuple(e.out for e in extents),
            dilation,
            count_include_pad,
        )
        return self.add_layer("pooling", params, [x], name)

    def add_activation(
        self,
        x: Tensor,
        function: str,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        name: str = "",
    ) -> Layer:
        """One of layers.activation.FUNCTIONS; alpha and beta None: the function's own defaults."""
        return self.add_layer("activation", ActivationParams(function, alpha, beta), [x], name)

    def add_parametric_relu(self, x: Tensor, slope: Array | Tensor, *, name: str = "") -> Layer:
        """X where it is not negative, else slope * x; slope broadcasts to x."""
        operand = self._operand(slope, x, f"{name or 'parametric_relu'}.slope")
        return self.add_layer("parametric_relu", ParametricReluParams(), [x, operand], name)

    def add_lrn(
        self,
        x: Tensor,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        *,
        region: Literal["across", "within"] = "across",
        name: str = "",
    ) -> Layer:
        """X / (k + alpha / n * sum of x^2)^beta; n = size, or size^2 within channels."""
        return self.add_layer("lrn", LrnParams(size, alpha, beta, k, region), [x], name)

    def add_scale(
        self,
        x: Tensor,
        mode: Literal["uniform", "channel", "elementwise"],
        shift: Array | Tensor | float | None = None,
        scale: Array | Tensor | float | None = None,
        power: Array | Tensor | float | None = None,
        *,
        channel_axis: int = 1,
        name: str = "",
    ) -> Layer:
        """(x * scale + shift) ^ power; what is None is left out.

        Args:
            x: input.
            mode: the coefficients are one value, one per channel, or shaped like x (batch of 1
                allowed).
            shift: array with so many elements or one, or a tensor that broadcasts to x.
            scale: as shift.
            power: as shift.
            channel_axis: axis of the channels.
            name: of the layer.
        """
        rank = x.type.rank
        axis = positive_axis(channel_axis, rank)
        inputs = [x]
        for value, what in ((shift, "shift"), (scale, "scale"), (power, "power")):
            if value is None:
                continue
            label = f"{name or 'scale'}.{what}"
            if isinstance(value, float | int | np.ndarray | np.generic):
                array = np.asarray(value)
                if array.dtype.kind in "iu" and x.dtype.is_float:
                    array = array.astype(np.float64)
                shape = {
                    "uniform": (1,) * rank,
                    "channel": tuple(d if i == axis else 1 for i, d in enumerate(x.shape)),
                    "elementwise": x.shape if array.size == x.type.num_elems else (1, *x.shape[1:]),
                }.get(mode)
                if shape is None:
                    raise NetworkError(f"mode '{mode}' is none of uniform, channel, elementwise")
                if array.size == 1:
                    shape = (1,) * rank
                inputs.append(self._operand(array, x, label, shape))
            else:
                inputs.append(self._operand(value, x, label))
        params = ScaleParams(shift is not None, scale is not None, power is not None)
        return self.add_layer("scale", params, inputs, name)

    def add_softmax(self, x: Tensor, axis: int = 1, *, log: bool = False, name: str = "") -> Layer:
        """Softmax over one axis (default: channels), or its logarithm."""
        params = SoftmaxParams(positive_axis(axis, x.type.rank), log)
        return self.add_layer("softmax", params, [x], name)

    def add_elementwise(self, a: Tensor, b: Tensor | Array, op: str, *, name: str = "") -> Layer:
        """One of expressions.BINARY_OPS on numpy-broadcast tensors."""
        other = self._operand(b, a, f"{name or op}.operand")
        return self.add_layer("elementwise", ElementwiseParams(op), [a, other], name)

    def add_unary(self, x: Tensor, op: str, *, name: str = "") -> Layer:
        """One of expressions.UNARY_OPS."""
        return self.add_layer("unary", UnaryParams(op), [x], name)

    def add_pointwise(
        self,
        expr: Expr,
        inputs: Sequence[Tensor],
        *,
        dtype: DataType | None = None,
        name: str = "",
    ) -> Layer:
        """Any scalar expression over numpy-broadcast inputs."""
        return self.add_layer("pointwise", PointwiseParams(expr, dtype), inputs, name)

    def add_select(self, condition: Tensor, a: Tensor, b: Tensor, *, name: str = "") -> Layer:
        """A where condition holds, else b."""
        return self.add_layer("select", SelectParams(), [condition, a, b], name)

    def add_reduce(
        self, x: Tensor, op: str, axes: Sequence[int], *, keep_dims: bool = True, name: str = ""
    ) -> Layer:
        """One of layers.reduce.REDUCE_OPS over axes."""
        where = tuple(sorted(positive_axis(a, x.type.rank) for a in axes))
        return self.add_layer("reduce", ReduceParams(op, where, keep_dims), [x], name)

    def add_matrix_multiply(
        self,
        a: Tensor,
        b: Tensor | Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        name: str = "",
    ) -> Layer:
        """Batched product over the last two dimensions; both sides have rank 2 or more."""
        other = self._operand(b, a, f"{name or 'matrix_multiply'}.weights")
        params = MatrixMultiplyParams(transpose_a, transpose_b)
        return self.add_layer("matrix_multiply", params, [a, other], name)


def _pads(
    begin: Extents, end: Extents | None, spatial: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = per_dim(begin, spatial, "pads")
    return before, before if end is None else per_dim(end, spatial, "pads_end")
