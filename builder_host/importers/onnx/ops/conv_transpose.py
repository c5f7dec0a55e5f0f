"""Transposed convolution."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.windows import Window, check_kernel_shape, read_window
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.network import Tensor


@operator("ConvTranspose", since=(1, 11, 22))
def conv_transpose(node: Node) -> Tensor:
    """Pads may follow from a wanted output shape or from auto_pad."""
    x, w, b = node.input(0), node.input(1), node.optional(2)
    size = w.shape[2:]
    check_kernel_shape(node, size)
    window = read_window(node, size, same=False)
    rank = len(size)
    extra = node.attr_ints("output_padding") or (0,) * rank
    wanted = node.attr_ints("output_shape")
    if wanted is not None and len(wanted) == rank + 2:
        wanted = wanted[2:]
    for name, values in (("output_padding", extra), ("output_shape", wanted)):
        if values is not None and (len(values) != rank or min(values) < 0):
            node.fail(f"attribute '{name}' is {values}; {rank} values of at least 0 are needed")
    if wanted is None and window.auto_pad.startswith("SAME"):
        wanted = tuple(e * s for e, s in zip(x.shape[2:], window.strides, strict=True))
    begin, end = window.pads_begin, window.pads_end
    if wanted is not None:
        begin, end, extra = _pads_for(window, x.shape[2:], wanted, extra)
    params = DeconvolutionParams(
        strides=window.strides,
        pads_begin=begin,
        pads_end=end,
        dilations=window.dilations,
        output_padding=extra,
        groups=node.attr_int("group", 1),
    )
    return node.add("deconvolution", params, x, w, *([] if b is None else [b]))


def _pads_for(
    window: Window, extents: tuple[int, ...], wanted: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Pads at begin and end, and output padding, that give the wanted extents."""
    begins, ends, extras = [], [], []
    for i, extent in enumerate(extents):
        full = (extent - 1) * window.strides[i] + window.extent(i) + extra[i]
        total = max(full - wanted[i], 0)
        small, large = total // 2, total - total // 2
        upper = window.auto_pad == "SAME_UPPER"
        begins.append(small if upper else large)
        ends.append(large if upper else small)
        extras.append(extra[i] + max(wanted[i] - full, 0))
    return tuple(begins), tuple(ends), tuple(extras)
