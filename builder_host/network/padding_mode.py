"""Padding modes: how pads and output extents follow from a rule instead of numbers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from builder_host.network.windows import dilated


class PaddingMode(enum.Enum):
    """Rules of TensorRT's PaddingMode; B and A are the pads before and after an extent I."""

    EXPLICIT_ROUND_DOWN = 0
    EXPLICIT_ROUND_UP = 1
    SAME_UPPER = 2
    SAME_LOWER = 3
    CAFFE_ROUND_DOWN = 4
    CAFFE_ROUND_UP = 5

    @property
    def is_same(self) -> bool:
        """Whether the pads follow from the extents, and given ones are ignored."""
        return self in (PaddingMode.SAME_UPPER, PaddingMode.SAME_LOWER)

    @property
    def is_caffe(self) -> bool:
        """Whether the pad before counts on both sides."""
        return self in (PaddingMode.CAFFE_ROUND_DOWN, PaddingMode.CAFFE_ROUND_UP)

    @property
    def rounds_up(self) -> bool:
        """Whether a last, partial step counts."""
        return self in (PaddingMode.EXPLICIT_ROUND_UP, PaddingMode.CAFFE_ROUND_UP)


@dataclass(frozen=True, slots=True)
class WindowExtent:
    """One dimension of a windowed layer: pads and the output extent."""

    pad_begin: int
    pad_end: int
    out: int


def window_extent(
    extent: int,
    window: int,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    mode: PaddingMode,
    *,
    is_pooling: bool = False,
) -> WindowExtent:
    """Pads and output extent of a convolution or pooling along one dimension.

    Convolution pads are such that rounding down gives `out`; pooling keeps the pads as stated
    (they decide the divisor of an average) and drops a last window that starts in the padding
    with the Caffe modes.
    """
    covered = dilated(window, dilation)
    begin, end = pads
    if mode.is_same:
        out = -(-extent // stride)
        total = max(0, (out - 1) * stride + covered - extent)
        begin, end = _halves(total, mode)
        return WindowExtent(begin, end, out)
    if mode.is_caffe:
        end = begin
    room = extent + begin + end - covered
    out = (-(-room // stride) if mode.rounds_up else room // stride) + 1
    if is_pooling:
        if mode.is_caffe and (out - 1) * stride >= extent + begin:
            out -= 1
        return WindowExtent(begin, end, out)
    missing = (out - 1) * stride + covered - (extent + begin + end)
    return WindowExtent(begin, end + max(0, missing), out)


def deconvolution_pads(
    window: int, stride: int, dilation: int, pads: tuple[int, int], mode: PaddingMode
) -> tuple[int, int]:
    """Elements that a deconvolution crops before and after one dimension of its output."""
    if mode.is_same:
        return _halves(max(0, dilated(window, dilation) - stride), mode)
    return (pads[0], pads[0]) if mode.is_caffe else pads


def _halves(total: int, mode: PaddingMode) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if mode is PaddingMode.SAME_UPPER else (large, small)
