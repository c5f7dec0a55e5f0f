"""Kernel, stride, padding and dilation as Caffe states them: `_h`/`_w`, one for all, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.network import Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """One value per spatial dimension; padding is the same on both sides."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def convolution_windows(layer: CaffeLayer, param: Any, bottom: Tensor) -> Windows:
    """Windows of a ConvolutionParameter over `bottom`. Raises LayerProblem."""
    if len(bottom.shape) < 3:
        raise LayerProblem(
            f"the bottom {shape_text(bottom)} has no spatial dimension; NxCxHxW is needed"
        )
    if layer.axis(param.axis, bottom) != 1:
        raise LayerProblem(f"axis is {param.axis}; channels must be axis 1")
    rank = len(bottom.shape) - 2
    kernel = _values(param, "kernel_size", "kernel", param.kernel_size, rank, None)
    windows = Windows(
        kernel,
        _values(param, "stride", "stride", param.stride, rank, 1),
        _values(param, "pad", "pad", param.pad, rank, 0),
        _spread("dilation", param.dilation, rank, 1),
    )
    for what, values in (
        ("kernel_size", windows.kernel),
        ("stride", windows.strides),
        ("dilation", windows.dilations),
    ):
        if min(values) < 1:
            raise LayerProblem(f"{what} is {values}, must be at least 1")
    return windows


def pooling_pair(param: Any, name: str, stem: str, default: int | None) -> tuple[int, int]:
    """(h, w) of one PoolingParameter property, e.g. `kernel_size` or `kernel_h`, `kernel_w`.

    Raises:
        LayerProblem: stated in both ways, by half, or not at all without a default.
    """
    one = [getattr(param, name)] if param.HasField(name) else []
    h, w = _values(param, name, stem, one, 2, default)
    return h, w


def _values(
    param: Any, name: str, stem: str, values: Sequence[int], rank: int, default: int | None
) -> tuple[int, ...]:
    has_h, has_w = param.HasField(f"{stem}_h"), param.HasField(f"{stem}_w")
    if has_h or has_w:
        h, w = getattr(param, f"{stem}_h"), getattr(param, f"{stem}_w")
        if values:
            raise LayerProblem(f"{name} and {stem}_h/{stem}_w are both stated; keep one")
        if rank != 2:
            raise LayerProblem(f"{stem}_h/{stem}_w need 2 spatial dimensions, there are {rank}")
        if not (has_h and has_w) and default is None:
            raise LayerProblem(f"{stem}_h and {stem}_w must be stated together")
        return (h if has_h else default or 0, w if has_w else default or 0)
    return _spread(name, values, rank, default)


def _spread(name: str, values: Sequence[int], rank: int, default: int | None) -> tuple[int, ...]:
    if not values:
        if default is None:
            raise LayerProblem(f"{name} is missing; state {name} or the _h and _w form")
        return (default,) * rank
    if len(values) == 1:
        return (int(values[0]),) * rank
    if len(values) != rank:
        raise LayerProblem(f"{name} has {len(values)} values for {rank} spatial dimensions")
    return tuple(int(v) for v in values)
