"""ConvTranspose: deconvolution to a stated output size."""

from __future__ import annotations

import numpy as np

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.windows import CHANNELS_FIRST, KERNEL_FIRST, padding
from builder_host.network.layers.deconvolution import DeconvolutionParams

OPERATIONS = ("ConvTranspose",)


def convert(view: NodeView) -> Value:
    """Inputs shape, kernel and data in any order: the shape has one dimension, data is computed.

    Raises:
        NodeProblem: the output size does not fit kernel, strides and padding.
    """
    view.require_inputs(3)
    shape_at, kernel_at, data_at = _places(view)
    stated = view.integer_list(shape_at, "the output shape")
    order = view.order(data_at, CHANNELS_FIRST)
    data = view.ordered(data_at, order)
    # The file's kernel is that of the forward convolution: its K are this one's input channels.
    kernel = view.ordered(kernel_at, view.order(kernel_at, KERNEL_FIRST))
    rank = len(order) - 2
    if len(stated) == rank + 2:
        stated = tuple(stated[order.index(dim)] for dim in range(2, rank + 2))
    if rank < 1 or len(stated) != rank or len(kernel.shape) != rank + 2:
        raise NodeProblem(
            f"the output shape has {len(stated)} values, kernel {kernel.shape} and data "
            f"{data.shape} have {rank} spatial dimensions"
        )
    strides = view.integers("strides", rank, (1,) * rank)
    dilations = view.integers("dilation", rank, (1,) * rank)
    full = [
        (extent - 1) * stride + (k - 1) * dilation + 1
        for extent, stride, dilation, k in zip(
            data.shape[2:], strides, dilations, kernel.shape[2:], strict=True
        )
    ]
    begin, end = padding(view, [max(f - o, 0) for f, o in zip(full, stated, strict=True)])
    rest = tuple(o - (f - b - e) for o, f, b, e in zip(stated, full, begin, end, strict=True))
    if any(not 0 <= r < s for r, s in zip(rest, strides, strict=True)):
        raise NodeProblem(
            f"output {stated} cannot come of data {data.shape[2:]} with kernel {kernel.shape[2:]}, "
            f"strides {strides} and padding {begin}"
        )
    params = DeconvolutionParams(
        strides, begin, end, dilations, rest, view.integer("number_groups", 1)
    )
    return Value(view.add("deconvolution", params, [data, kernel]), order)


def _places(view: NodeView) -> tuple[int, int, int]:
    constant = [v.tensor.values for v in view.values]
    shapes = [
        i for i, a in enumerate(constant) if a is not None and a.ndim == 1 and a.dtype.kind in "iu"
    ]
    data = [i for i, a in enumerate(constant) if a is None]
    if len(shapes) != 1 or len(data) != 1:
        known = [None if a is None else np.shape(a) for a in constant]
        raise NodeProblem(
            f"needs a computed input, a constant kernel and a constant shape; constants are {known}"
        )
    (kernel,) = {0, 1, 2} - {shapes[0], data[0]}
    return shapes[0], kernel, data[0]
