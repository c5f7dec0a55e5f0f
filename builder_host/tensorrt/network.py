"""INetworkDefinition: layers recorded as they are added, emitted when the network is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from builder_host.errors import NetworkError
from builder_host.network.network import Network, Tensor
from builder_host.plugins.plugin import Plugin
from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.enums import (
    ActivationType,
    ElementWiseOperation,
    MatrixOperation,
    PoolingType,
    ReduceOperation,
    ScaleMode,
    TopKOperation,
    UnaryOperation,
)
from builder_host.tensorrt.layers import ILayer
from runtime_edge.tensorrt.types import PLAN_TYPES, DataType, Dims, of_plan

Shapes = Mapping[str, tuple[int, ...]]
Import = Callable[[int | None, Shapes], Network]
LayerKind = TypeVar("LayerKind", bound=ILayer)


class ITensor:
    """A tensor of a network under construction; its shape follows from what stands before it."""

    def __init__(self, network: INetworkDefinition, name: str, producer: ILayer | None) -> None:
        """See `INetworkDefinition`."""
        self._network = network
        self._name = name
        self._producer = producer
        self.dynamic_range: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Name; may be changed until the network is built."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._network._rename(self, name)
        self._name = name

    @property
    def shape(self) -> Dims:
        """Dimensions, without the batch where that is implicit."""
        shape = self._network._built(self).shape
        return Dims(shape[1:] if self._network.has_implicit_batch_dimension else shape)

    @property
    def dtype(self) -> DataType:
        """Element type."""
        return of_plan(self._network._built(self).dtype)

    @property
    def is_network_input(self) -> bool:
        """Whether it is an input of the network."""
        return self in self._network._inputs

    @property
    def is_network_output(self) -> bool:
        """Whether it is marked as an output."""
        return self in self._network._outputs

    def set_dynamic_range(self, min: float, max: float) -> bool:
        """The range for int8; symmetric ranges take the larger magnitude."""
        self.dynamic_range = (min, max)
        return True


class INetworkDefinition:
    """A network; see TensorRT's documentation for the methods, `builder_host.network` for layers.

    Attributes:
        has_implicit_batch_dimension: dimensions leave out the batch, which `batch` gives.
    """

    def __init__(self, *, is_explicit: bool, batch: Callable[[], int | None]) -> None:
        """`batch` gives the builder's max_batch_size, None while that is not set."""
        self._is_explicit = is_explicit
        self._batch = batch
        self._inputs: list[ITensor] = []
        self._types: dict[ITensor, tuple[DataType, tuple[int, ...]]] = {}
        self._outputs: list[ITensor] = []
        self._layers: list[ILayer] = []
        self._import: Import | None = None
        self._imported: dict[str, ITensor] = {}
        self.name = "network"

    @property
    def has_implicit_batch_dimension(self) -> bool:
        """Whether shapes leave out the batch: no EXPLICIT_BATCH flag, and a max_batch_size."""
        return not self._is_explicit and self._batch() is not None

    @property
    def num_layers(self) -> int:
        """Layers that were added."""
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        """Inputs."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """Marked outputs."""
        return len(self._outputs)

    def get_layer(self, index: int) -> ILayer:
        """A layer by its number."""
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        """An input by its number."""
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        """A marked output by its number."""
        return self._outputs[index]

    def __iter__(self) -> Any:
        """The layers."""
        return iter(self._layers)

    def __enter__(self) -> INetworkDefinition:
        """The network itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    # --- inputs, outputs, layers ----------------------------------------------------------

    def add_input(self, name: str, dtype: DataType, shape: Sequence[int]) -> ITensor:
        """Declare an input."""
        tensor = ITensor(self, name, None)
        self._inputs.append(tensor)
        self._types[tensor] = (dtype, tuple(shape))
        return tensor

    def mark_output(self, tensor: ITensor) -> None:
        """Make a tensor an output."""
        self._outputs.append(tensor)

    def unmark_output(self, tensor: ITensor) -> None:
        """Take that back."""
        self._outputs.remove(tensor)

    def add_convolution_nd(
        self,
        input: ITensor,
        num_output_maps: int,
        kernel_shape: Sequence[int],
        kernel: Any,
        bias: Any = None,
    ) -> kinds.IConvolutionLayer:
        """Convolution."""
        return self._add(
            kinds.IConvolutionLayer,
            [input],
            num_output_maps=num_output_maps,
            kernel_size=tuple(kernel_shape),
            kernel=kernel,
            bias=bias,
        )

    add_convolution = add_convolution_nd

    def add_deconvolution_nd(
        self,
        input: ITensor,
        num_output_maps: int,
        kernel_shape: Sequence[int],
        kernel: Any,
        bias: Any = None,
    ) -> kinds.IDeconvolutionLayer:
        """Deconvolution."""
        return self._add(
            kinds.IDeconvolutionLayer,
            [input],
            num_output_maps=num_output_maps,
            kernel_size=tuple(kernel_shape),
            kernel=kernel,
            bias=bias,
        )

    add_deconvolution = add_deconvolution_nd

    def add_pooling_nd(
        self, input: ITensor, type: PoolingType, window_size: Sequence[int]
    ) -> kinds.IPoolingLayer:
        """Pooling."""
        return self._add(kinds.IPoolingLayer, [input], type=type, kernel_size=tuple(window_size))

    add_pooling = add_pooling_nd

    def add_fully_connected(
        self, input: ITensor, num_outputs: int, kernel: Any, bias: Any = None
    ) -> kinds.IFullyConnectedLayer:
        """Fully connected layer."""
        return self._add(
            kinds.IFullyConnectedLayer,
            [input],
            num_output_channels=num_outputs,
            kernel=kernel,
            bias=bias,
        )

    def add_activation(self, input: ITensor, type: ActivationType) -> kinds.IActivationLayer:
        """Activation."""
        return self._add(kinds.IActivationLayer, [input], type=type)

    def add_lrn(
        self, input: ITensor, window: int, alpha: float, beta: float, k: float
    ) -> kinds.ILRNLayer:
        """Local response normalisation."""
        return self._add(kinds.ILRNLayer, [input], window_size=window, alpha=alpha, beta=beta, k=k)

    def add_scale(
        self,
        input: ITensor,
        mode: ScaleMode,
        shift: Any = None,
        scale: Any = None,
        power: Any = None,
    ) -> kinds.IScaleLayer:
        """Scale."""
        return self._add(
            kinds.IScaleLayer, [input], mode=mode, shift=shift, scale=scale, power=power
        )

    def add_scale_nd(
        self,
        input: ITensor,
        mode: ScaleMode,
        shift: Any = None,
        scale: Any = None,
        power: Any = None,
        channel_axis: int = 1,
    ) -> kinds.IScaleLayer:
        """Scale along any axis."""
        layer = self.add_scale(input, mode, shift, scale, power)
        layer.channel_axis = channel_axis
        return layer

    def add_softmax(self, input: ITensor) -> kinds.ISoftMaxLayer:
        """Softmax."""
        return self._add(kinds.ISoftMaxLayer, [input])

    def add_concatenation(self, inputs: Sequence[ITensor]) -> kinds.IConcatenationLayer:
        """Concatenation."""
        return self._add(kinds.IConcatenationLayer, list(inputs))

    def add_elementwise(
        self, input1: ITensor, input2: ITensor, op: ElementWiseOperation
    ) -> kinds.IElementWiseLayer:
        """Operation on two tensors."""
        return self._add(kinds.IElementWiseLayer, [input1, input2], op=op)

    def add_unary(self, input: ITensor, op: UnaryOperation) -> kinds.IUnaryLayer:
        """Operation on one tensor."""
        return self._add(kinds.IUnaryLayer, [input], op=op)

    def add_padding_nd(
        self, input: ITensor, pre_padding: Sequence[int], post_padding: Sequence[int]
    ) -> kinds.IPaddingLayer:
        """Padding of the last two dimensions."""
        return self._add(
            kinds.IPaddingLayer,
            [input],
            pre_padding=tuple(pre_padding),
            post_padding=tuple(post_padding),
        )

    add_padding = add_padding_nd

    def add_shuffle(self, input: ITensor) -> kinds.IShuffleLayer:
        """Shuffle."""
        return self._add(kinds.IShuffleLayer, [input])

    def add_reduce(
        self, input: ITensor, op: ReduceOperation, axes: int, keep_dims: bool
    ) -> kinds.IReduceLayer:
        """Reduction."""
        return self._add(kinds.IReduceLayer, [input], op=op, axes=axes, keep_dims=keep_dims)

    def add_topk(self, input: ITensor, op: TopKOperation, k: int, axes: int) -> kinds.ITopKLayer:
        """The k largest or smallest."""
        return self._add(kinds.ITopKLayer, [input], 2, op=op, k=k, axes=axes)

    def add_gather(self, input: ITensor, indices: ITensor, axis: int) -> kinds.IGatherLayer:
        """Gather."""
        return self._add(kinds.IGatherLayer, [input, indices], axis=axis)

    def add_matrix_multiply(
        self, input0: ITensor, op0: MatrixOperation, input1: ITensor, op1: MatrixOperation
    ) -> kinds.IMatrixMultiplyLayer:
        """Matrix product."""
        return self._add(kinds.IMatrixMultiplyLayer, [input0, input1], op0=op0, op1=op1)

    def add_constant(self, shape: Sequence[int], weights: Any) -> kinds.IConstantLayer:
        """Constant."""
        return self._add(kinds.IConstantLayer, [], shape=tuple(shape), weights=weights)

    def add_identity(self, input: ITensor) -> kinds.IIdentityLayer:
        """Identity."""
        return self._add(kinds.IIdentityLayer, [input])

    def add_slice(
        self, input: ITensor, start: Sequence[int], shape: Sequence[int], stride: Sequence[int]
    ) -> kinds.ISliceLayer:
        """Slice."""
        return self._add(
            kinds.ISliceLayer,
            [input],
            start=tuple(start),
            shape=tuple(shape),
            stride=tuple(stride),
        )

    def add_select(
        self, condition: ITensor, then_input: ITensor, else_input: ITensor
    ) -> kinds.ISelectLayer:
        """Selection."""
        return self._add(kinds.ISelectLayer, [condition, then_input, else_input])

    def add_parametric_relu(self, input: ITensor, slopes: ITensor) -> kinds.IParametricReLULayer:
        """Parametric rectifier."""
        return self._add(kinds.IParametricReLULayer, [input, slopes])

    def add_plugin_v2(self, inputs: Sequence[ITensor], plugin: Plugin) -> kinds.IPluginV2Layer:
        """A plugin (`builder_host.plugins`), compiled into the plan."""
        return self._add(kinds.IPluginV2Layer, list(inputs), plugin=plugin)

    # --- what parsers use -----------------------------------------------------------------

    def take_import(self, imported: Import) -> Network:
        """Begin with an imported model; `imported` makes it for a batch (None: its own).

        Raises:
            NetworkError: the network has content already.
        """
        if self._import is not None or self._layers or self._inputs:
            raise NetworkError("parse a model into an empty network, and only one")
        network = imported(self._batch() if self.has_implicit_batch_dimension else None, {})
        self._import = imported
        self._inputs = [self.imported_tensor(tensor.name) for tensor in network.inputs]
        self.name = network.name
        return network

    def imported_tensor(self, name: str) -> ITensor:
        """The handle of an imported tensor."""
        return self._imported.setdefault(name, ITensor(self, name, None))

    # --- building ---------------------------------------------------------------------------

    def emit(
        self, batch: int | None, shapes: Shapes | None = None
    ) -> tuple[Network, dict[ITensor, Tensor]]:
        """The network, and its tensors by handle.

        Args:
            batch: rows where the batch is implicit, else None.
            shapes: of inputs with open dimensions; those that are not named are 1 there.

        Raises:
            NetworkError: a layer's inputs break its rules.
        """
        shift = int(batch is not None)
        given = shapes or {}
        net = Network(self.name) if self._import is None else self._import(batch, given)
        found: dict[ITensor, Tensor] = {}
        if self._import is not None:
            by_name = {tensor.name: tensor for tensor in net.tensors()}
            for name, handle in self._imported.items():
                if name not in by_name:
                    raise NetworkError(f"the imported model has no tensor '{name}'")
                found[handle] = by_name[name]
            net.outputs.clear()
        for handle, (dtype, shape) in self._types.items():
            closed = given.get(handle.name) or tuple(abs(extent) for extent in shape)
            full = (batch, *closed) if batch is not None else closed
            found[handle] = net.add_input(handle.name, full, PLAN_TYPES[dtype])
        for layer in self._layers:
            outputs = layer.emit(net, [found[tensor] for tensor in layer.inputs], shift)
            for handle, tensor in zip(layer.outputs, outputs, strict=False):
                found[handle] = tensor
        for handle in self._outputs:
            tensor = found[handle]
            if tensor in net.inputs or tensor.is_constant:
                tensor = net.add_unary(tensor, "neg").output
                tensor = net.add_unary(tensor, "neg").output
            net.mark_output(tensor, handle.name if handle.name != tensor.name else None)
        return net, found

    def dynamic_ranges(self, found: dict[ITensor, Tensor]) -> dict[str, float]:
        """Ranges that were set, by the names of the built tensors."""
        return {
            found[handle].name: float(np.abs(handle.dynamic_range).max())
            for handle in found
            if handle.dynamic_range is not None
        }

    def _add(
        self, kind: type[LayerKind], inputs: list[ITensor], num_outputs: int = 1, **values: Any
    ) -> LayerKind:
        number = len(self._layers)
        title = kind.__name__.removeprefix("I").removesuffix("Layer")
        layer = kind(inputs=inputs, name=f"(Unnamed Layer* {number}) [{title}]", **values)
        layer.outputs = [
            ITensor(self, f"{layer.name}_output_{index}", layer) for index in range(num_outputs)
        ]
        self._layers.append(layer)
        return layer

    def _rename(self, tensor: ITensor, name: str) -> None:
        if self._import is not None and tensor in self._imported.values():
            raise NetworkError(f"'{tensor.name}' was imported; it keeps its name")
        taken = {other.name for other in (*self._inputs, *self._outputs) if other is not tensor}
        if name in taken:
            raise NetworkError(f"the name '{name}' is in use")

    def _built(self, tensor: ITensor) -> Tensor:
        batch = self._batch() if self.has_implicit_batch_dimension else None
        _, found = self.emit(batch)
        if tensor not in found:
            raise NetworkError(f"'{tensor.name}' belongs to another network")
        return found[tensor]
