"""Packing of convolution weights in the order in which the direct kernels read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from builder_host.kernels.family import Array


def blocked_weights(weights: Array, groups: int, lanes: int) -> Array:
    """Weights with channels padded to whole blocks, group by group.

    Args:
        weights: [K, C/G, KH, KW].
        groups: G; with more than one, K/G fills whole blocks.
        lanes: channels per block.

    Returns:
        [output block, input block, kh, kw, input lane, output lane], zero where padded.
    """
    filters, channels, kernel_h, kernel_w = weights.shape
    out_blocks = groups * -(-(filters // groups) // lanes)
    in_blocks = -(-channels // lanes)
    shape = (out_blocks * lanes, in_blocks * lanes, kernel_h, kernel_w)
    padded = weights
    if shape != weights.shape:
        padded = np.zeros(shape, weights.dtype)
        padded[:filters, :channels] = weights
    split = padded.reshape(out_blocks, lanes, in_blocks, lanes, kernel_h, kernel_w)
    return split.transpose(0, 2, 4, 5, 3, 1)


def packed_sets(blocked: Array, sets: Sequence[int]) -> Array:
    """Concatenate [input block, kh, kw, input lane, block of set, output lane] of each set.

    Args:
        blocked: from `blocked_weights`.
        sets: number of output blocks in each set, in order.
    """
    block = math.prod(blocked.shape[1:])
    packed = np.empty(sum(sets) * block, blocked.dtype)
    first = 0
    for size in sets:
        part = blocked[first : first + size].transpose(1, 2, 3, 4, 0, 5)
        packed[first * block : (first + size) * block].reshape(part.shape)[...] = part
        first += size
    return packed


def mixed_rows(filters: int, channels: int, groups: int, lanes: int) -> list[tuple[int, int, int]]:
    """For each output block: first and end input channel of its groups, input blocks before it.

    A block whose channels belong to several groups reads the channels of all of them.
    """
    rows, before = [], 0
    for first in range(0, filters, lanes):
        last = min(first + lanes, filters) - 1
        begin = first // (filters // groups) * (channels // groups)
        end = (last // (filters // groups) + 1) * (channels // groups)
        rows.append((begin, end, before))
        before += -(-end // lanes) - begin // lanes
    return rows


def mixed_blocks(weights: Array, groups: int, lanes: int) -> list[Array]:
    """Weights of groups that share blocks: dense within a block, zero between its groups.

    Args:
        weights: [K, C/G, KH, KW].
        groups: G.
        lanes: channels per block.

    Returns:
        For each row of `mixed_rows` [1, input block, kh, kw, input lane, output lane].
    """
    filters, group_channels, kernel_h, kernel_w = weights.shape
    group_filters, blocks = filters // groups, []
    for index, (begin, end, _) in enumerate(
        mixed_rows(filters, group_channels * groups, groups, lanes)
    ):
        base = begin // lanes * lanes
        in_blocks = -(-end // lanes) - begin // lanes
        dense = np.zeros((lanes, in_blocks * lanes, kernel_h, kernel_w), weights.dtype)
        for lane, k in enumerate(range(index * lanes, min((index + 1) * lanes, filters))):
            column = k // group_filters * group_channels - base
            dense[lane, column : column + group_channels] = weights[k]
        split = dense.reshape(1, lanes, in_blocks, lanes, kernel_h, kernel_w)
        blocks.append(split.transpose(0, 2, 4, 5, 3, 1))
    return blocks


def packed_mixed(weights: Array, groups: int, lanes: int) -> Array:
    """`mixed_blocks` one after the other, flat."""
    blocks = mixed_blocks(weights, groups, lanes)
    return np.concatenate([np.ascontiguousarray(block).reshape(-1) for block in blocks])
