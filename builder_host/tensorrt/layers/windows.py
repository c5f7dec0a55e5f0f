"""Layers with windows: convolution, deconvolution, pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from builder_host.errors import NetworkError
from builder_host.network.network import Layer, Network, Tensor
from builder_host.tensorrt.enums import PaddingMode, PoolingType
from builder_host.tensorrt.layers.base import (
    ILayer,
    alias,
    optional,
    optional_weights,
    required,
    weights_of,
)

Extents = Sequence[int]


@dataclass(eq=False, kw_only=True)
class _Windowed(ILayer):
    """Attributes of layers with windows, under their old and new names."""

    kernel_size: Extents = (1, 1)
    stride: Extents = ()
    padding: Extents = ()
    pre_padding: Extents = ()
    post_padding: Extents = ()
    dilation: Extents = ()
    padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN

    def _extents(self) -> dict[str, Any]:
        rank = len(self.kernel_size)
        begin = tuple(self.pre_padding or self.padding or (0,) * rank)
        return {
            "strides": tuple(self.stride or (1,) * rank),
            "pads": begin,
            "pads_end": tuple(self.post_padding or self.padding or (0,) * rank),
            "padding_mode": self.padding_mode,
            "name": self.name,
        }


for _new, _old in (
    ("kernel_size_nd", "kernel_size"),
    ("stride_nd", "stride"),
    ("padding_nd", "padding"),
    ("dilation_nd", "dilation"),
):
    setattr(_Windowed, _new, alias(_old))


@dataclass(eq=False, kw_only=True)
class IConvolutionLayer(_Windowed):
    """Convolution. Inputs 1 and 2, if given, are kernel and bias in place of the weights."""

    num_output_maps: int
    kernel: Any
    bias: Any = None
    num_groups: int = 1

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a convolution."""
        del shift
        return self._added(net.add_convolution, xs)

    def _added(self, add: Callable[..., Layer], xs: list[Tensor | None]) -> list[Tensor]:
        layer = add(
            required(xs, 0, self),
            self.num_output_maps,
            tuple(self.kernel_size),
            *self._weights(xs),
            dilations=tuple(self.dilation or (1,) * len(self.kernel_size)),
            groups=self.num_groups,
            **self._extents(),
        )
        return layer.outputs

    def _weights(self, xs: list[Tensor | None]) -> tuple[Any, Any]:
        kernel, bias = optional(xs, 1), optional(xs, 2)
        return (
            weights_of(self.kernel, self) if kernel is None else kernel,
            optional_weights(self.bias) if bias is None else bias,
        )


@dataclass(eq=False, kw_only=True)
class IDeconvolutionLayer(IConvolutionLayer):
    """Deconvolution; padding crops the output."""

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a deconvolution."""
        del shift
        return self._added(net.add_deconvolution, xs)


@dataclass(eq=False, kw_only=True)
class IPoolingLayer(_Windowed):
    """Pooling; a blend is (1 - blend_factor) * maximum + blend_factor * average."""

    type: PoolingType
    average_count_excludes_padding: bool = True
    blend_factor: float = 0.0
    window_size = alias("kernel_size")
    window_size_nd = alias("kernel_size")

    def emit(self, net: Network, xs: list[Tensor | None], shift: int) -> list[Tensor]:
        """Add a pooling, or two and their blend."""
        del shift
        x = required(xs, 0, self)
        if self.type is not PoolingType.MAX_AVERAGE_BLEND:
            return [self._pooled(net, x, self.type)]
        if not 0 <= self.blend_factor <= 1:
            raise NetworkError(f"'{self.name}': blend_factor is {self.blend_factor}, not in 0..1")
        parts = []
        for kind, factor in (
            (PoolingType.MAX, 1 - self.blend_factor),
            (PoolingType.AVERAGE, self.blend_factor),
        ):
            pooled = self._pooled(net, x, kind)
            parts.append(net.add_scale(pooled, "uniform", scale=factor, name=self.name).output)
        return net.add_elementwise(parts[0], parts[1], "add", name=self.name).outputs

    def _pooled(self, net: Network, x: Tensor, kind: PoolingType) -> Tensor:
        mode: Any = kind.value
        return net.add_pooling(
            x,
            mode,
            tuple(self.kernel_size),
            count_include_pad=not self.average_count_excludes_padding,
            **self._extents(),
        ).output
