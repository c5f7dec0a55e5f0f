"""Convolution of 8-bit tensors by dot products of four bytes: every architecture.

For GPUs without int8 tensor cores that the toolkit reaches (sm_61, sm_72), and for narrow groups on
all others. sm_53 and sm_62 lack the instruction and take four products: INT8 brings nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builder_host.kernels.cuda_conv_igemm.tiles import OUTPUT_CLOCKS, SM_BYTES_PER_CLOCK
from builder_host.kernels.cuda_conv_int8.family import TERMS_SOURCE, with_terms
from builder_host.kernels.cuda_conv_simt.epilogue import CONVOLUTION_SOURCE, with_convolution
from builder_host.kernels.cuda_conv_simt.geometry import Convolution
from builder_host.kernels.cuda_conv_simt.tiled import (
    TILE_K,
    TILED_SOURCE,
    Tile,
    TiledConvolution,
)
from builder_host.kernels.cuda_loop_nest.cost import clocks_us, stream_us
from builder_host.kernels.family import template_hash
from builder_host.targets.cuda import CudaTarget

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_MAX_SUMS, _MAX_SUMS_TAKEN_APART = 32, 8  # of a thread
_BASE_CLOCKS = 2800.0  # as the other convolutions
_STEP_CLOCKS = 350.0  # latency of one pass through the k loop of a lonely block, as cuda_conv_simt
# Share of the shorter of arithmetic and memory that is not hidden: where memory bounds this kernel
# and that of the tensor cores alike, theirs leaves more of the SM to the next one.
_NOT_HIDDEN = 0.1
_DOTS_PER_CLOCK = 0.7 * 64.0  # of one SM: half the rate of float multiply-adds


@dataclass(frozen=True, slots=True)
class _ThreadTile(Tile):
    thread_pixels: int
    thread_filters: int

    @property
    def threads(self) -> int:
        return self.pixels // self.thread_pixels * (self.filters // self.thread_filters)


class CudaConvDp4a(TiledConvolution[_ThreadTile]):
    """Family `cuda_conv_dp4a`; tactic parameters are the tiles of a block and of a thread."""

    name = "cuda_conv_dp4a"
    template_hash = template_hash(
        *(_TEMPLATE, TERMS_SOURCE, CONVOLUTION_SOURCE, TILED_SOURCE, Path(__file__).read_text())
    )
    stem = "conv_dp4a"
    template = with_terms(with_convolution(_TEMPLATE))
    tile_type = _ThreadTile
    shapes = (
        (64, 64, 4, 4),
        (128, 32, 8, 4),
        (64, 32, 4, 4),
        (32, 64, 4, 4),
        (32, 32, 2, 4),
        (16, 32, 2, 4),
    )
    is_integer = True
    packed_dtype = np.int8
    run_terms = 4  # one word

    def fits(self, conv: Convolution, target: CudaTarget) -> bool:
        """Channels side by side."""
        del target
        return conv.x_strides[1] == 1 or conv.channels == 1

    def is_launchable(self, tile: _ThreadTile, target: CudaTarget) -> bool:
        """Bytes that are taken apart need registers of their own."""
        most = _MAX_SUMS if target.has_dp4a else _MAX_SUMS_TAKEN_APART
        return tile.thread_pixels * tile.thread_filters <= most

    def tile_us(self, tile: _ThreadTile, conv: Convolution, target: CudaTarget) -> float:
        """Blocks over SMs: dot products, copies from L2 or the latency of their steps; results.

        Copies and results cost what they were measured to cost in `cuda_conv_igemm`.
        """
        _, y, z = tile.grid(conv)
        per_sm = -(-y * z // target.num_sms)
        steps = -(-conv.num_terms // TILE_K)
        dots = tile.pixels * tile.filters * TILE_K / 4 / _DOTS_PER_CLOCK
        dots *= 1 if target.has_dp4a else 8  # bytes are taken apart first
        resident = min(per_sm, max(1, min(target.max_threads_per_sm // tile.threads, 6)))
        copies = (tile.pixels + tile.filters) * TILE_K / SM_BYTES_PER_CLOCK
        full = 1 + sum(not operand.is_channel for operand in conv.operands)
        results = tile.pixels * tile.filters * OUTPUT_CLOCKS * full
        step = max(dots, copies, _STEP_CLOCKS / resident)
        clocks = _BASE_CLOCKS + per_sm * (steps * step + results)
        times = (clocks_us(clocks, target), stream_us(conv.moved_bytes, target))
        return max(times) + _NOT_HIDDEN * min(times)

    def tile_parameters(self, tile: _ThreadTile) -> dict[str, int | str]:
        """Outputs of a thread."""
        return {
            "THREAD_PIXELS": tile.thread_pixels,
            "THREAD_FILTERS": tile.thread_filters,
            "TILE_K": TILE_K,
        }


FAMILY = CudaConvDp4a()
