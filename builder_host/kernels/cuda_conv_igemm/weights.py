"""Weights of the tensor-core convolution in the order in which the kernel reads them."""

from __future__ import annotations

import numpy as np

from builder_host.kernels.cuda_conv_igemm.tiles import Tile
from builder_host.kernels.family import Array


def fragment_filters(tile: Tile) -> Array:
    """Filter of a tile at `[pair of 8-column tiles, column, which of the two]`.

    Columns of up to four neighbouring tiles are interleaved: the two columns that a lane holds in
    each of them together are neighbouring filters.
    """
    of_warp = tile.filters // tile.warps_n
    tiles = of_warp // 8
    run = min(tiles, 4)
    found = np.empty((tile.filters // 16, 8, 2), np.int64)
    for pair in range(tile.filters // 16):
        warp, inner = divmod(pair, tiles // 2)
        for which in range(2):
            j = 2 * inner + which
            for column in range(8):
                found[pair, column, which] = (
                    warp * of_warp + j // run * 8 * run + column // 2 * 2 * run
                    + j % run * 2 + column % 2
                )  # fmt: skip
    return found


def fragment_weights(weights: Array, tile: Tile, padded_filters: int) -> Array:
    """Fragments by group, filter tile, step, 16 k values, pair of column tiles and lane.

    Args:
        weights: `[groups, filters per group, taps, channels per group]`, two bytes each: float16,
            or pairs of neighbouring INT8 channels.
        tile: the kernel's tile.
        padded_filters: filters per group with those that fill the last tile.

    Returns:
        Flat array of the same type; a channel count that is no multiple of 8 is padded per tap.
    """
    if tile.is_patch:
        weights = by_channel_chunk(weights, tile.tile_k)
    groups, filters, taps, channels = weights.shape
    padded_channels = -(-channels // 8) * 8
    steps = -(-taps * padded_channels // tile.tile_k)
    by_tap = np.zeros((groups, padded_filters, taps, padded_channels), weights.dtype)
    by_tap[:, :filters, :, :channels] = weights
    flat = np.zeros((groups, padded_filters, steps * tile.tile_k), weights.dtype)
    flat[:, :, : taps * padded_channels] = by_tap.reshape(groups, padded_filters, -1)
    blocks = flat.reshape(
        groups, padded_filters // tile.filters, tile.filters, steps, tile.tile_k // 16, 16
    ).transpose(0, 1, 3, 4, 2, 5)
    quad, half, low = np.ogrid[:4, :2, :2]
    ordered = blocks[:, :, :, :, fragment_filters(tile)][..., 2 * quad + 8 * half + low]
    # ... pair, column, which, quad, half, low -> pair, column, quad, which, half, low
    return np.ascontiguousarray(ordered.transpose(0, 1, 2, 3, 4, 5, 7, 6, 8, 9)).reshape(-1)


def by_channel_chunk(weights: Array, size: int) -> Array:
    """`[groups, filters, chunks x taps, channels of a chunk]`, zeros in the last chunk."""
    groups, filters, taps, channels = weights.shape
    chunks = -(-channels // size)
    padded = np.zeros((groups, filters, taps, chunks * size), weights.dtype)
    padded[..., :channels] = weights
    split = padded.reshape(groups, filters, taps, chunks, size).transpose(0, 1, 3, 2, 4)
    return split.reshape(groups, filters, chunks * taps, size)
