"""Strides, pads and dilations of the window operators, with `auto_pad` resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from builder_host.importers.onnx.node import Node
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.network import Tensor

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True, slots=True)
class Window:
    """One value per spatial dimension; `auto_pad` tells how pads were found."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str

    def extent(self, i: int) -> int:
        """Extent of the dilated window in spatial dimension `i`."""
        return (self.size[i] - 1) * self.dilations[i] + 1


def spatial_rank(node: Node) -> int:
    """Number of spatial dimensions of input 0."""
    rank = node.input(0).type.rank - 2
    if rank < 1:
        node.fail(f"input {node.input(0).type} needs batch, channels and space")
    return rank


def read_window(node: Node, size: tuple[int, ...], *, same: bool = True) -> Window:
    """The window attributes; with `same`, SAME pads are those of a strided window.

    Args:
        node: gives `strides`, `pads`, `dilations`, `auto_pad`.
        size: window extents.
        same: False leaves SAME pads at 0 for the caller to compute (ConvTranspose).
    """
    rank = spatial_rank(node)
    if len(size) != rank:
        node.fail(f"the window {size} has {len(size)} dimensions, the input has {rank}")
    strides = _per_dim(node, "strides", rank, 1)
    dilations = _per_dim(node, "dilations", rank, 1)
    if min(*size, *strides, *dilations) < 1:
        node.fail(f"window {size}, strides {strides} and dilations {dilations} must be positive")
    auto_pad = node.choice("auto_pad", "NOTSET", _AUTO_PADS)
    pads = node.attr_ints("pads") or (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        node.fail(f"attribute 'pads' has {len(pads)} values, {rank} dimensions need {2 * rank}")
    if auto_pad != "NOTSET":
        if any(pads):
            node.fail(f"both pads {pads} and auto_pad={auto_pad} are stated; keep one")
        pads = (0,) * (2 * rank)
    window = Window(size, strides, pads[:rank], pads[rank:], dilations, auto_pad)
    if not same or not auto_pad.startswith("SAME"):
        return window
    split = []
    for i, extent in enumerate(node.input(0).shape[2:]):
        outputs = -(-extent // strides[i])
        total = max((outputs - 1) * strides[i] + window.extent(i) - extent, 0)
        split.append((total // 2, total - total // 2))
    if auto_pad == "SAME_LOWER":
        split = [(b, a) for a, b in split]
    begin, end = tuple(a for a, _ in split), tuple(b for _, b in split)
    return Window(size, strides, begin, end, dilations, auto_pad)


def add_convolution(node: Node, inputs: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """A convolution by the node's attributes.

    Args:
        node: with the window's attributes and `group`.
        inputs: x, weights and perhaps a bias.
        size: spatial extents of the weights.
    """
    check_kernel_shape(node, size)
    window = read_window(node, size)
    params = ConvolutionParams(
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        dilations=window.dilations,
        groups=node.attr_int("group", 1),
    )
    return node.add("convolution", params, *inputs)


def rounding(node: Node) -> Literal["floor", "ceil"]:
    """Rounding of pooled extents by attribute `ceil_mode`."""
    return "ceil" if node.attr_int("ceil_mode", 0) else "floor"


def _per_dim(node: Node, name: str, rank: int, default: int) -> tuple[int, ...]:
    values = node.attr_ints(name) or (default,) * rank
    if len(values) != rank:
        node.fail(f"attribute '{name}' has {len(values)} values, the input has {rank} dimensions")
    return values


def check_kernel_shape(node: Node, size: tuple[int, ...]) -> None:
    """Refuse a `kernel_shape` that contradicts the weights."""
    stated = node.attr_ints("kernel_shape")
    if stated is not None and stated != size:
        node.fail(f"attribute 'kernel_shape' is {stated} but the weights have {size}")
