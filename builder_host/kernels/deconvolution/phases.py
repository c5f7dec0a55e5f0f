"""Sub-pixel decomposition of a deconvolution: taps per phase and tiles per row.

Output position o and kernel tap k meet where (o + pad - k * dilation) is a multiple of the stride.
So taps fall into phases, and outputs of one phase are a stride-1 convolution with that phase's
taps: tap k reads input (o + pad) // stride - offset, offset = k * dilation // stride.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """Kernel taps of one phase and the input offset of each, ascending."""

    taps: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tiles:
    """`repeat` tiles of `count` outputs from output number `start` of a phase.

    is_inner: every tap of every output meets the input.
    """

    start: int
    count: int
    repeat: int
    is_inner: bool


def phases(kernel: int, stride: int, dilation: int) -> tuple[Phase, ...]:
    """One phase per residue of the stride; a phase may have no taps."""
    found = []
    for residue in range(stride):
        taps = tuple(k for k in range(kernel) if k * dilation % stride == residue)
        found.append(Phase(taps, tuple(k * dilation // stride for k in taps)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a deconvolution; the pad is not negative."""

    input_extent: int
    output_extent: int
    stride: int
    pad: int


def tiles(axis: Axis, number: int, phase: Phase, widest: int) -> tuple[Tiles, ...]:
    """Cover the outputs of one phase with even tiles; equal inner neighbours are joined.

    Args:
        axis: extents, stride and pad.
        number: the phase's residue.
        phase: its taps.
        widest: most outputs in a tile.
    """
    input_extent, stride, pad = axis.input_extent, axis.stride, axis.pad
    count = len(range((number - pad) % stride, axis.output_extent, stride))
    if count == 0:
        return ()
    width = -(-count // -(-count // widest))
    base = ((number - pad) % stride + pad) // stride
    low = max(phase.offsets, default=base) - base
    high = input_extent + min(phase.offsets, default=count + base - input_extent) - base
    found: list[Tiles] = []
    for start in range(0, count, width):
        size = min(width, count - start)
        inner = start >= low and start + size <= high
        last = found[-1] if found else None
        if last and inner and last.is_inner and last.count == size:
            found[-1] = Tiles(last.start, size, last.repeat + 1, True)
        else:
            found.append(Tiles(start, size, 1, inner))
    return tuple(found)
