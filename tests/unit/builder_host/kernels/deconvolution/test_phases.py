"""Phases and tiles cover a deconvolution exactly once."""

from __future__ import annotations

import itertools

from builder_host.kernels.deconvolution.phases import Axis, phases, tiles


def test_every_output_and_tap_meets_the_right_input():
    for kernel, stride, dilation, pad, extent in itertools.product(
        (1, 2, 3, 5), (1, 2, 3), (1, 2, 3), (0, 1, 4), (1, 4, 9)
    ):
        output = max(1, (extent - 1) * stride + dilation * (kernel - 1) + 1 - 2 * pad)
        axis = Axis(extent, output, stride, pad)
        found = phases(kernel, stride, dilation)
        covered = []
        for number, phase in enumerate(found):
            for piece in tiles(axis, number, phase, 4):
                for q in range(piece.start, piece.start + piece.count * piece.repeat):
                    o = (number - pad) % stride + q * stride
                    covered.append(o)
                    for tap, offset in zip(phase.taps, phase.offsets, strict=True):
                        read = (o + pad) // stride - offset
                        assert read * stride + tap * dilation == o + pad
                        assert not piece.is_inner or 0 <= read < extent
        assert sorted(covered) == list(range(output))
        assert sorted(tap for phase in found for tap in phase.taps) == list(range(kernel))
