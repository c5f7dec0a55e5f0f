"""Kernel, stride and padding as UFF states them: `padding`, or `implicit_padding` by TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.importers.uff.node import NodeView
from builder_host.importers.uff.orders import INCREMENT, Order
from builder_host.importers.uff.problem import NodeProblem

CHANNELS_FIRST: Order = (0, 1, 2, INCREMENT)
KERNEL_FIRST: Order = (0, 1, 2, INCREMENT)


@dataclass(frozen=True, slots=True)
class Windows:
    """One value per spatial dimension."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]


def read_windows(view: NodeView, extents: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Windows of a convolution or pooling over `extents`. Raises NodeProblem."""
    rank = len(extents)
    strides = view.integers("strides", rank, (1,) * rank)
    dilations = view.integers("dilation", rank, (1,) * rank)
    if min(*strides, *dilations, *kernel) < 1:
        raise NodeProblem(
            f"kernel {tuple(kernel)}, strides {strides} and dilation {dilations} must be at least 1"
        )
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    totals = [
        max((-(-e // s) - 1) * s + r - e, 0)
        for e, s, r in zip(extents, strides, reach, strict=True)
    ]
    begin, end = padding(view, totals)
    return Windows(strides, dilations, begin, end)


def padding(view: NodeView, same: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each dimension; `same` is what TensorFlow's SAME adds in all.

    SAME puts the odd cell behind. `padding` is one number per dimension, for both sides.
    """
    implicit = view.text("implicit_padding", "")
    stated = view.integers("padding", len(same), ()) if view.has("padding") else None
    if implicit and stated is not None:
        raise NodeProblem("states both padding and implicit_padding; keep one")
    if stated is not None:
        if min(stated) < 0:
            raise NodeProblem(f"padding is {stated}, must not be negative")
        return stated, stated
    if implicit in ("", "valid"):
        return (0,) * len(same), (0,) * len(same)
    if implicit != "same":
        raise NodeProblem(f"implicit_padding is '{implicit}', must be 'same' or 'valid'")
    return tuple(t // 2 for t in same), tuple(t - t // 2 for t in same)
