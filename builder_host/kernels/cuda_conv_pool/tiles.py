"""Tiles of the pooling tensor-core convolution: which exist, what they cost."""

from __future__ import annotations

import functools
from dataclasses import replace

from builder_host.kernels.cuda_conv_igemm.tiles import MAX_GRID, Tile, estimate_us
from builder_host.kernels.cuda_conv_pool.geometry import PooledConvolution
from builder_host.targets.cuda import CudaTarget

# (pixels, filters, warps over pixels, warps over filters)
_SHAPES = (
    (64, 32, 2, 1),
    (64, 64, 2, 2),
    (64, 128, 2, 4),
    (64, 128, 1, 4),
    (128, 32, 4, 1),
    (128, 64, 4, 2),
    (128, 64, 2, 2),
    (128, 128, 2, 4),
    (256, 64, 4, 2),
)
_TILE_K = (64, 32, 16)
_COLUMNS = (8, 16, 32)  # windows come four in a row: eight columns
_MAX_STRIDE = 2
_MAX_UNROLLED = 80  # k16 steps in the text of the kernel
_OPERAND_BYTES = 4  # of shared memory per filter and channel vector
_MOST_STAGES = 8


@functools.lru_cache(maxsize=512)  # a build asks often: applies, estimate, tactics, source
def ranked(conv: PooledConvolution, target: CudaTarget) -> tuple[tuple[float, Tile], ...]:
    """Tiles that fit the target and the problem, with microseconds, the expected best first.

    Of tiles that differ in k and rectangle only the cheapest is kept.
    """
    if max(conv.stride_h, conv.stride_w) > _MAX_STRIDE or conv.x_vector < 8 or conv.x_is_view:
        return ()
    found: dict[tuple[int, ...], tuple[float, Tile]] = {}
    for pixels, filters, warps_m, warps_n in _SHAPES:
        for tile_k in _TILE_K:
            if conv.num_taps * tile_k // 16 > _MAX_UNROLLED:
                continue
            for columns in _COLUMNS:
                rows = pixels // columns
                tile = _fitted(
                    Tile(pixels, filters, warps_m, warps_n, 1, tile_k, 2, 1, False, rows, columns),
                    conv,
                    target,
                )
                if tile is None or rows % 2:
                    continue
                cost = estimate_us(tile, conv, target)
                key = (pixels, filters, warps_m)
                if key not in found or cost < found[key][0]:
                    found[key] = (cost, tile)
    return tuple(sorted(found.values(), key=lambda item: item[0]))


def _fitted(tile: Tile, conv: PooledConvolution, target: CudaTarget) -> Tile | None:
    """The tile with as many stages as are useful, None when it does not suit the problem."""
    wanted = tile.steps(conv)
    # Half of an SM: blocks of the next kernel can come while this one ends.
    room = min(target.shared_per_block_bytes, target.shared_per_sm_bytes // 2 - 1024)
    room -= _OPERAND_BYTES * len(conv.operands) * tile.filters
    stages = min(wanted, _MOST_STAGES, room // tile.stage_bytes(conv))
    if stages < min(wanted, 2) or max(tile.grid(conv)[1:]) > MAX_GRID:
        return None
    return replace(tile, stages=stages)
