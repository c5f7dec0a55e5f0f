"""Layers of TensorRT's network API: attributes that may change until the network is built.

`emit` adds a layer to an edgeplan network. `shift` is 1 in implicit-batch networks, whose axes and
shapes leave out the batch, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.tensorrt.enums import (
    ActivationType,
    ElementWiseOperation,
    MatrixOperation,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ScaleMode,
    TopKOperation,
    UnaryOperation,
)

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor

Extents = Sequence[int]


@dataclass(eq=False, kw_only=True)
class ILayer:
    """A layer: inputs, outputs, name, and the attributes of its kind."""

    inputs: list[ITensor]
    name: str
    outputs: list[ITensor] = field(default_factory=list)
    precision: Any = None
    metadata: str = ""

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self.outputs)

    def get_input(self, index: int) -> ITensor:
        """An input."""
        return self.inputs[index]

    def get_output(self, index: int) -> ITensor:
        """An output."""
        return self.outputs[index]

    def set_input(self, index: int, tensor: ITensor) -> None:
        """Replace an input."""
        self.inputs[index] = tensor

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add the layer to a network; returns its outputs."""
        raise NotImplementedError


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


def _alias(name: str) -> Any:
    def read(self: Any) -> Any:
        return getattr(self, name)

    def write(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return property(read, write, doc=f"The same as `{name}`.")


for _new, _old in (
    ("kernel_size_nd", "kernel_size"),
    ("stride_nd", "stride"),
    ("padding_nd", "padding"),
    ("dilation_nd", "dilation"),
    ("window_size", "kernel_size"),
    ("window_size_nd", "kernel_size"),
):
    setattr(_Windowed, _new, _alias(_old))


@dataclass(eq=False, kw_only=True)
class IConvolutionLayer(_Windowed):
    """Convolution."""

    num_output_maps: int
    kernel: Any
    bias: Any = None
    num_groups: int = 1

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a convolution."""
        del shift
        layer = net.add_convolution(
            xs[0],
            self.num_output_maps,
            tuple(self.kernel_size),
            weights_of(self.kernel, self),
            optional_weights(self.bias),
            dilations=tuple(self.dilation or (1,) * len(self.kernel_size)),
            groups=self.num_groups,
            **self._extents(),
        )
        return layer.outputs


@dataclass(eq=False, kw_only=True)
class IDeconvolutionLayer(IConvolutionLayer):
    """Deconvolution."""

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a deconvolution."""
        del shift
        layer = net.add_deconvolution(
            xs[0],
            self.num_output_maps,
            tuple(self.kernel_size),
            weights_of(self.kernel, self),
            optional_weights(self.bias),
            dilations=tuple(self.dilation or (1,) * len(self.kernel_size)),
            groups=self.num_groups,
            **self._extents(),
        )
        return layer.outputs


@dataclass(eq=False, kw_only=True)
class IPoolingLayer(_Windowed):
    """Pooling."""

    type: PoolingType
    average_count_excludes_padding: bool = True

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a pooling."""
        del shift
        mode: Any = self.type.value
        layer = net.add_pooling(
            xs[0],
            mode,
            tuple(self.kernel_size),
            count_include_pad=not self.average_count_excludes_padding,
            **self._extents(),
        )
        return layer.outputs


@dataclass(eq=False, kw_only=True)
class IFullyConnectedLayer(ILayer):
    """Fully connected layer: the last three dimensions become one; output [.., K, 1, 1]."""

    num_output_channels: int
    kernel: Any
    bias: Any = None

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a fully connected layer and the two dimensions that its output keeps."""
        del shift
        layer = net.add_fully_connected(
            xs[0],
            self.num_output_channels,
            weights_of(self.kernel, self),
            optional_weights(self.bias),
            name=self.name,
        )
        shape = (*layer.output.shape, 1, 1)
        return net.add_reshape(layer.output, shape, name=f"{self.name}.shape").outputs


@dataclass(eq=False, kw_only=True)
class IActivationLayer(ILayer):
    """Activation."""

    type: ActivationType
    alpha: float | None = None
    beta: float | None = None

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add an activation."""
        del shift
        return net.add_activation(
            xs[0], self.type.value, alpha=self.alpha, beta=self.beta, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class ILRNLayer(ILayer):
    """Local response normalisation across channels."""

    window_size: int
    alpha: float
    beta: float
    k: float

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a normalisation."""
        del shift
        return net.add_lrn(
            xs[0], self.window_size, self.alpha, self.beta, self.k, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class IScaleLayer(ILayer):
    """(x * scale + shift) ^ power."""

    mode: ScaleMode
    shift: Any = None
    scale: Any = None
    power: Any = None
    channel_axis: int = 1

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a scale."""
        mode: Any = self.mode.value
        coefficients = [optional_weights(w) for w in (self.shift, self.scale, self.power)]
        axis = 1 if shift else self.channel_axis
        return net.add_scale(xs[0], mode, *coefficients, channel_axis=axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ISoftMaxLayer(ILayer):
    """Softmax over the axis of a bit mask; by default the third from the end, or the first."""

    axes: int = 0

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a softmax."""
        rank = xs[0].type.rank
        axis = single_axis(self.axes, self) + shift if self.axes else max(rank - 3, shift)
        return net.add_softmax(xs[0], axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IConcatenationLayer(ILayer):
    """Concatenation; by default along the third axis from the end, at least the first."""

    axis: int | None = None

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a concatenation."""
        axis = max(xs[0].type.rank - 3, shift) if self.axis is None else self.axis + shift
        return net.add_concatenation(xs, axis, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IElementWiseLayer(ILayer):
    """An operation on two tensors."""

    op: ElementWiseOperation

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add an operation."""
        del shift
        return net.add_elementwise(xs[0], xs[1], self.op.value, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IUnaryLayer(ILayer):
    """An operation on one tensor."""

    op: UnaryOperation

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add an operation."""
        del shift
        return net.add_unary(xs[0], self.op.value, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IPaddingLayer(ILayer):
    """Zeros around the last two dimensions; negative numbers crop."""

    pre_padding: Extents
    post_padding: Extents

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a padding."""
        del shift
        front = (0,) * (xs[0].type.rank - 2)
        return net.add_padding(
            xs[0], (*front, *self.pre_padding), (*front, *self.post_padding), name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class IShuffleLayer(ILayer):
    """Transpose, reshape, transpose: what is given of them."""

    first_transpose: Sequence[int] | None = None
    reshape_dims: Sequence[int] | None = None
    second_transpose: Sequence[int] | None = None
    zero_is_placeholder: bool = True

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a shuffle."""

        def with_batch(order: Sequence[int] | None) -> Sequence[int] | None:
            if order is None or not shift:
                return order
            return (0, *(axis + 1 for axis in order))

        reshape = self.reshape_dims
        if reshape is not None and shift:
            reshape = (xs[0].shape[0], *reshape)
        if reshape is None and self.first_transpose is None and self.second_transpose is None:
            return xs
        return net.add_shuffle(
            xs[0],
            first_transpose=with_batch(self.first_transpose),
            reshape=reshape,
            second_transpose=with_batch(self.second_transpose),
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IReduceLayer(ILayer):
    """Reduction over the axes of a bit mask."""

    op: ReduceOperation
    axes: int
    keep_dims: bool

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a reduction."""
        axes = [axis + shift for axis in axes_of(self.axes)]
        return net.add_reduce(
            xs[0], self.op.value, axes, keep_dims=self.keep_dims, name=self.name
        ).outputs


@dataclass(eq=False, kw_only=True)
class ITopKLayer(ILayer):
    """The k largest or smallest along the axis of a bit mask: values and indices."""

    op: TopKOperation
    k: int
    axes: int

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a top-k."""
        axis = single_axis(self.axes, self) + shift
        is_largest = self.op is TopKOperation.MAX
        return net.add_top_k(xs[0], self.k, axis, largest=is_largest, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IGatherLayer(ILayer):
    """Rows by index along an axis."""

    axis: int

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a gather."""
        return net.add_gather(xs[0], xs[1], self.axis + shift, name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IMatrixMultiplyLayer(ILayer):
    """Matrix product."""

    op0: MatrixOperation
    op1: MatrixOperation

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a product."""
        del shift
        if MatrixOperation.VECTOR in (self.op0, self.op1):
            raise NetworkError(f"'{self.name}': give vectors a dimension of 1 instead of VECTOR")
        return net.add_matrix_multiply(
            xs[0],
            xs[1],
            transpose_a=self.op0 is MatrixOperation.TRANSPOSE,
            transpose_b=self.op1 is MatrixOperation.TRANSPOSE,
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class IConstantLayer(ILayer):
    """A constant."""

    shape: Sequence[int]
    weights: Any

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a constant."""
        del xs
        shape = (1, *self.shape) if shift else tuple(self.shape)
        return [net.add_constant(weights_of(self.weights, self).reshape(shape), self.name)]


@dataclass(eq=False, kw_only=True)
class IIdentityLayer(ILayer):
    """Its input."""

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Nothing to add."""
        del net, shift
        return xs


@dataclass(eq=False, kw_only=True)
class ISliceLayer(ILayer):
    """Every stride-th element from a start on."""

    start: Sequence[int]
    shape: Sequence[int]
    stride: Sequence[int]

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a slice."""
        batch = xs[0].shape[:shift]
        return net.add_slice(
            xs[0],
            (*(0 for _ in batch), *self.start),
            (*batch, *self.shape),
            (*(1 for _ in batch), *self.stride),
            name=self.name,
        ).outputs


@dataclass(eq=False, kw_only=True)
class ISelectLayer(ILayer):
    """One of two tensors by a condition."""

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a selection."""
        del shift
        return net.add_select(xs[0], xs[1], xs[2], name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class IParametricReLULayer(ILayer):
    """Leaky rectifier with slopes from a tensor."""

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add a parametric rectifier."""
        del shift
        return net.add_parametric_relu(xs[0], xs[1], name=self.name).outputs


@dataclass(eq=False, kw_only=True)
class ImportedLayer(ILayer):
    """A whole imported model; `function` adds it to a network and returns its outputs."""

    function: Callable[[Network, list[Tensor], int], list[Tensor]]

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add the model."""
        return self.function(net, xs, shift)


@dataclass(eq=False, kw_only=True)
class IPluginV2Layer(ILayer):
    """A plugin of `builder_host.plugins`."""

    plugin: Any

    def emit(self, net: Network, xs: list[Tensor], shift: int) -> list[Tensor]:
        """Add the plugin."""
        del shift
        return net.add_plugin(self.plugin, xs, name=self.name).outputs


def weights_of(weights: Any, layer: ILayer) -> Any:
    """Weights as an array. Raises NetworkError when there are none."""
    array = optional_weights(weights)
    if array is None:
        raise NetworkError(f"'{layer.name}': the weights are empty")
    return array


def optional_weights(weights: Any) -> Any:
    """An array, or None for None and empty weights."""
    if weights is None:
        return None
    array = np.asarray(weights.numpy() if hasattr(weights, "numpy") else weights)
    return array if array.size else None


def axes_of(mask: int) -> list[int]:
    """Axes of a bit mask."""
    return [axis for axis in range(mask.bit_length()) if mask >> axis & 1]


def single_axis(mask: int, layer: ILayer) -> int:
    """The one axis of a bit mask. Raises NetworkError."""
    axes = axes_of(mask)
    if len(axes) != 1:
        raise NetworkError(f"'{layer.name}': axes={mask:#b} names {len(axes)} axes; expected one")
    return axes[0]
