"""`add_*` methods of layers with weights or windows: convolutions, full connection, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.network.api import NetworkDoor, per_dim
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.padding_mode import PaddingMode, deconvolution_pads, window_extent

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]
Extents = int | Sequence[int]


class WindowMethods(NetworkDoor):
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

        Args:
            x: [N,C,*S].
            num_maps: output channels K.
            kernel: window, one number, or one per spatial dimension.
            weights: [C,K/groups,*kernel], or an array with as many elements in that order.
            bias: [K] or None.
            strides: one number, or one per spatial dimension.
            pads: cropped before each spatial dimension, and after it unless pads_end is given.
            pads_end: cropped after each spatial dimension.
            dilations: as strides.
            output_padding: extends the end of each spatial dimension.
            groups: input and output channels are split into so many independent parts.
            padding_mode: rule for pads.
            name: of the layer.
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
        """y[N,K] = x·wᵀ + b; x is flattened after the batch to V; weights [K,V] row-major.

        Args:
            x: [N,...].
            num_outputs: K.
            weights: [K,V], or an array with as many elements.
            bias: [K] or None.
            name: of the layer.
        """
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
        CAFFE_ROUND_UP with count_include_pad.

        Args:
            x: [N,C,*S].
            mode: `max` or `average`.
            window: one number, or one per spatial dimension.
            strides: one number, or one per spatial dimension.
            pads: before each spatial dimension, and after it unless pads_end is given.
            pads_end: after each spatial dimension.
            dilations: as strides.
            count_include_pad: whether padded cells count in an average.
            padding_mode: rule for pads and rounding.
            name: of the layer.
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


def _pads(
    begin: Extents, end: Extents | None, spatial: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = per_dim(begin, spatial, "pads")
    return before, before if end is None else per_dim(end, spatial, "pads_end")
