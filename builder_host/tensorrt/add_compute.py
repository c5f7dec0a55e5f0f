"""`add_*` methods of layers that compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder_host.errors import NetworkError
from builder_host.plugins.plugin import Plugin
from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.enums import (
    ActivationType,
    CumulativeOperation,
    ElementWiseOperation,
    MatrixOperation,
    PoolingType,
    ReduceOperation,
    ScaleMode,
    UnaryOperation,
)
from builder_host.tensorrt.recorder import Recorder
from runtime_edge.tensorrt.types import DataType

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor


class ComputeMethods(Recorder):
    """Part of `INetworkDefinition`."""

    def add_convolution_nd(
        self,
        input: ITensor,
        num_output_maps: int,
        kernel_shape: Sequence[int],
        kernel: Any = None,
        bias: Any = None,
    ) -> kinds.IConvolutionLayer:
        """Convolution."""
        return self.add_kind(
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
        kernel: Any = None,
        bias: Any = None,
    ) -> kinds.IDeconvolutionLayer:
        """Deconvolution."""
        return self.add_kind(
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
        return self.add_kind(
            kinds.IPoolingLayer, [input], type=type, kernel_size=tuple(window_size)
        )

    add_pooling = add_pooling_nd

    def add_fully_connected(
        self, input: ITensor, num_outputs: int, kernel: Any, bias: Any = None
    ) -> kinds.IFullyConnectedLayer:
        """Fully connected layer."""
        return self.add_kind(
            kinds.IFullyConnectedLayer,
            [input],
            num_output_channels=num_outputs,
            kernel=kernel,
            bias=bias,
        )

    def add_activation(self, input: ITensor, type: ActivationType) -> kinds.IActivationLayer:
        """Activation."""
        return self.add_kind(kinds.IActivationLayer, [input], type=type)

    def add_parametric_relu(self, input: ITensor, slopes: ITensor) -> kinds.IParametricReLULayer:
        """Parametric rectifier."""
        return self.add_kind(kinds.IParametricReLULayer, [input, slopes])

    def add_lrn(
        self, input: ITensor, window: int, alpha: float, beta: float, k: float
    ) -> kinds.ILRNLayer:
        """Local response normalisation."""
        return self.add_kind(
            kinds.ILRNLayer, [input], window_size=window, alpha=alpha, beta=beta, k=k
        )

    def add_normalization(
        self,
        input: ITensor,
        scale: ITensor,
        bias: ITensor,
        axesMask: int,  # noqa: N803
    ) -> kinds.INormalizationLayer:
        """Normalisation of instances, groups or layers."""
        return self.add_kind(kinds.INormalizationLayer, [input, scale, bias], axes=axesMask)

    add_normalization_v2 = add_normalization

    def add_scale(
        self,
        input: ITensor,
        mode: ScaleMode,
        shift: Any = None,
        scale: Any = None,
        power: Any = None,
    ) -> kinds.IScaleLayer:
        """Scale."""
        return self.add_kind(
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
        return self.add_kind(kinds.ISoftMaxLayer, [input])

    def add_ragged_softmax(self, input: ITensor, bounds: ITensor) -> kinds.IRaggedSoftMaxLayer:
        """Softmax of rows of different lengths."""
        return self.add_kind(kinds.IRaggedSoftMaxLayer, [input, bounds])

    def add_elementwise(
        self, input1: ITensor, input2: ITensor, op: ElementWiseOperation
    ) -> kinds.IElementWiseLayer:
        """Operation on two tensors."""
        return self.add_kind(kinds.IElementWiseLayer, [input1, input2], op=op)

    def add_unary(self, input: ITensor, op: UnaryOperation) -> kinds.IUnaryLayer:
        """Operation on one tensor."""
        return self.add_kind(kinds.IUnaryLayer, [input], op=op)

    def add_select(
        self, condition: ITensor, then_input: ITensor, else_input: ITensor
    ) -> kinds.ISelectLayer:
        """Selection."""
        return self.add_kind(kinds.ISelectLayer, [condition, then_input, else_input])

    def add_reduce(
        self, input: ITensor, op: ReduceOperation, axes: int, keep_dims: bool
    ) -> kinds.IReduceLayer:
        """Reduction."""
        return self.add_kind(kinds.IReduceLayer, [input], op=op, axes=axes, keep_dims=keep_dims)

    def add_cumulative(
        self,
        input: ITensor,
        axis: ITensor,
        op: CumulativeOperation,
        exclusive: bool,
        reverse: bool,
    ) -> kinds.ICumulativeLayer:
        """Running sum."""
        return self.add_kind(
            kinds.ICumulativeLayer, [input, axis], op=op, exclusive=exclusive, reverse=reverse
        )

    def add_matrix_multiply(
        self, input0: ITensor, op0: MatrixOperation, input1: ITensor, op1: MatrixOperation
    ) -> kinds.IMatrixMultiplyLayer:
        """Matrix product."""
        return self.add_kind(kinds.IMatrixMultiplyLayer, [input0, input1], op0=op0, op1=op1)

    def add_einsum(self, inputs: Sequence[ITensor], equation: str) -> kinds.IEinsumLayer:
        """Sum of products."""
        return self.add_kind(kinds.IEinsumLayer, list(inputs), equation=equation)

    def add_quantize(
        self, input: ITensor, scale: ITensor, output_type: DataType = DataType.INT8
    ) -> kinds.IQuantizeLayer:
        """To 8 bits."""
        return self.add_kind(kinds.IQuantizeLayer, [input, scale], to_type=output_type)

    def add_dequantize(
        self, input: ITensor, scale: ITensor, output_type: DataType = DataType.FLOAT
    ) -> kinds.IDequantizeLayer:
        """From 8 bits."""
        return self.add_kind(kinds.IDequantizeLayer, [input, scale], to_type=output_type)

    def add_plugin_v2(self, inputs: Sequence[ITensor], plugin: Plugin) -> kinds.IPluginV2Layer:
        """A plugin (`builder_host.plugins`), compiled into the plan.

        Raises:
            NetworkError: the plugin refuses the inputs.
        """
        try:
            outputs = plugin.output_types([tensor.plan_type for tensor in inputs])
        except ValueError as error:
            raise NetworkError(f"plugin {plugin.name}: {error}") from error
        return self.add_kind(kinds.IPluginV2Layer, list(inputs), len(outputs), plugin=plugin)
