"""Convolution of float32 tensors with products in tf32: where the build allows it, sm_80 and later.

Any kernel, stride, padding, dilation, batch and group of NHWC tensors whose channels come in fours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from planformat.datatypes import DataType

_TEMPLATE = Path(__file__).with_name("kernel.cu").read_text()
_PITCH = TILE_K + 4
_STAGES = 3
_MAX_DECONVOLUTION_STRIDE = 2
_BASE_CLOCKS = 2800.0
_STEP_CLOCKS = 500.0  # latency of one pass through the k loop of a lonely block
_PRODUCTS_PER_CLOCK = 512.0  # of one SM, a guess at half of an A100's rate


@dataclass(frozen=True, slots=True)
class _WarpTile(Tile):
    warps_m: int
    warps_n: int

    @property
    def threads(self) -> int:
        return self.warps_m * self.warps_n * 32

    @property
    def shared_bytes(self) -> int:
        return _STAGES * 4 * _PITCH * (self.pixels + self.filters)


class CudaConvTf32(TiledConvolution[_WarpTile]):
    """Family `cuda_conv_tf32`; tactic parameters are the tile of a block and its warps."""

    name = "cuda_conv_tf32"
    template_hash = template_hash(
        *(_TEMPLATE, CONVOLUTION_SOURCE, TILED_SOURCE, Path(__file__).read_text())
    )
    stem = "conv_tf32"
    template = with_convolution(_TEMPLATE)
    tile_type = _WarpTile
    shapes = ((128, 64, 4, 1), (64, 64, 2, 2), (64, 32, 4, 1), (32, 64, 2, 2), (32, 32, 2, 2))
    is_integer = False
    packed_dtype = np.float32
    run_terms = TILE_K

    def fits(self, conv: Convolution, target: CudaTarget) -> bool:
        """Where the layer may use tf32: floats in NHWC, groups of whole vectors of channels."""
        if conv.problem.math != "tf32" or not target.has_mma_k16:
            return False
        if conv.x_dtype is not DataType.FLOAT32 or conv.y_dtype is not DataType.FLOAT32:
            return False
        if conv.x_strides[1] != 1 or conv.x_vector != 4 or conv.group_channels % 4:
            return False
        if conv.groups > 1 and min(conv.group_channels, conv.group_filters) < 8:
            return False
        strides = max(conv.stride_h, conv.stride_w)
        return not conv.is_transposed or strides <= _MAX_DECONVOLUTION_STRIDE

    def is_launchable(self, tile: _WarpTile, target: CudaTarget) -> bool:
        """The stages lie in shared memory together."""
        return tile.shared_bytes <= target.shared_per_block_bytes

    def tile_us(self, tile: _WarpTile, conv: Convolution, target: CudaTarget) -> float:
        """Blocks over SMs: their products, or the latency of their steps."""
        _, y, z = tile.grid(conv)
        per_sm = -(-y * z // target.num_sms)
        steps = -(-conv.num_terms // TILE_K)
        products = tile.pixels * tile.filters * TILE_K / _PRODUCTS_PER_CLOCK
        step = max(products, _STEP_CLOCKS / min(per_sm, 4))
        clocks = _BASE_CLOCKS + per_sm * steps * step
        return max(clocks_us(clocks, target), stream_us(conv.moved_bytes, target))

    def tile_parameters(self, tile: _WarpTile) -> dict[str, int | str]:
        """Warps of a block and stages of its pipeline."""
        return {"WARPS_M": tile.warps_m, "WARPS_N": tile.warps_n, "STAGES": _STAGES}


FAMILY = CudaConvTf32()
