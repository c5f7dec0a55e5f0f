"""Conv and DepthwiseConv: a convolution; the file's orders say where channels and space are."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.windows import CHANNELS_FIRST, KERNEL_FIRST, read_windows
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.network import Tensor

OPERATIONS = ("Conv", "DepthwiseConv")


def convert(view: NodeView) -> Value:
    """Inputs data and kernel; bias is a node of its own."""
    view.require_inputs(2)
    order = view.order(0, CHANNELS_FIRST)
    if len(order) < 3:
        raise NodeProblem(f"the data has {len(order)} dimensions, a convolution needs at least 3")
    data = view.ordered(0, order)
    kernel = view.ordered(1, view.order(1, KERNEL_FIRST))
    if len(kernel.shape) != len(order):
        raise NodeProblem(
            f"the kernel has {len(kernel.shape)} dimensions, the data {len(order)}; they must agree"
        )
    is_depthwise = view.node.operation == "DepthwiseConv"
    channels = data.shape[1]
    groups = view.integer("number_groups", channels if is_depthwise else 1)
    if groups < 1 or channels % groups:
        raise NodeProblem(f"number_groups is {groups}, the data has {channels} channels")
    kernel = _grouped(view, kernel, channels, groups)
    windows = read_windows(view, data.shape[2:], kernel.shape[2:])
    params = ConvolutionParams(
        windows.strides, windows.pads_begin, windows.pads_end, windows.dilations, groups
    )
    return Value(view.add("convolution", params, [data, kernel]), order)


def _grouped(view: NodeView, kernel: Tensor, channels: int, groups: int) -> Tensor:
    """Kernel [K, C/groups, ...]; TensorFlow's depthwise kernels are [multiplier, C, ...]."""
    if groups == 1 or kernel.shape[1] * groups == channels:
        return kernel
    if kernel.shape[1] != channels or groups != channels:
        raise NodeProblem(
            f"the kernel has {kernel.shape[1]} input channels, the data {channels} in {groups} "
            f"groups; {channels // groups} are needed"
        )
    values = kernel.values
    if values is None:
        raise NodeProblem("a grouped kernel must be known at build time")
    swapped = values.swapaxes(0, 1)
    return view.constant(swapped.reshape(-1, 1, *kernel.shape[2:]), "kernel")
