"""8-bit convolutions in the terms of the float16 tensor-core kernel: pairs of channels as halves.

`mma` takes 32 channels of 8 bits where it takes 16 of float16, from registers and shared memory of
the same shape. So tiles, their costs and the order of packed weights are those of the float16
kernel for half as many channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builder_host.kernels.cuda_conv_igemm.tiles import Tile, candidates, estimate_us
from builder_host.kernels.cuda_conv_igemm.weights import fragment_weights
from builder_host.kernels.cuda_conv_simt.geometry import Convolution
from builder_host.kernels.cuda_loop_nest.cost import clocks_us
from builder_host.kernels.family import Array
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType

CHUNK = 16  # channels of one copy
# Instructions of all threads together for one piece of a chunk that is not copied as a whole, over
# the 128 lanes of an SM: address, test, load, shift. A count, not a measurement.
_PIECE_CLOCKS = 24.0 / 128.0


def in_halves(conv: Convolution) -> Convolution:
    """The convolution with pairs of channels as float16 channels.

    Where a group's channels are no multiple of 16, taps and channels together are padded to whole
    chunks: a 1x1 convolution that reads every term once.
    """
    halves = replace(conv, x_dtype=DataType.FLOAT16, w_dtype=DataType.FLOAT16)
    if conv.group_channels % CHUNK == 0:
        return replace(halves, channels=conv.channels // 2, x_vector=max(conv.x_vector // 2, 1))
    terms = -(-conv.num_terms // CHUNK) * CHUNK
    image_bytes = conv.batch * conv.channels * conv.in_h * conv.in_w
    return replace(
        halves,
        channels=terms // 2 * conv.groups,
        kernel_h=1,
        kernel_w=1,
        in_h=1,
        in_w=-(-image_bytes // (conv.batch * terms * conv.groups)),  # as many bytes as there are
        x_vector=1,
    )


def ranked_tiles(conv: Convolution, target: CudaTarget, most: int) -> list[Tile]:
    """Tiles that fit the target and the problem, the expected best first."""
    return candidates(in_halves(conv), target, most, patches=False)


def tile_us(tile: Tile, conv: Convolution, target: CudaTarget) -> float:
    """Estimated time of a tile, with the instructions that gather what lies apart."""
    halves = in_halves(conv)
    time_us = estimate_us(tile, halves, target)
    if conv.x_vector == CHUNK:
        return time_us
    _, y, z = tile.grid(halves)
    pieces = tile.pixels * tile.steps(halves) * tile.tile_k * 2 / conv.x_vector
    per_sm = -(-y * z // target.num_sms)
    return time_us + clocks_us(per_sm * pieces * _PIECE_CLOCKS, target)


def sum_bytes(tile: Tile) -> int:
    """Shared memory of the int32 tiles that the warps or a cluster's blocks exchange."""
    if tile.warps_k == 1 and not tile.uses_cluster:
        return 0
    return tile.warps_k * tile.pixels * (tile.filters + 4) * 4


def packed_weights(weights: Array, conv: Convolution, tile: Tile) -> Array:
    """INT8 weights as fragments.

    Args:
        weights: INT8 `[groups, filters per group, taps, channels per group]`.
        conv: the convolution.
        tile: of the kernel.

    Returns:
        Flat uint16 array: pairs of channels in the order of `fragment_weights`.
    """
    groups, filters, taps, channels = weights.shape
    terms = -(-taps * channels // CHUNK) * CHUNK
    padded = np.zeros((groups, filters, 1, terms), np.int8)
    padded[:, :, 0, : taps * channels] = weights.reshape(groups, filters, -1)
    pairs = padded.view(np.uint16)
    return fragment_weights(pairs, tile, tile.padded_filters(in_halves(conv)))
