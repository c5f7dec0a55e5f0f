"""Packing of bfloat16 weights for dot products of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.kernels.conv_direct.weights import blocked_weights, mixed_blocks, packed_sets
from builder_host.kernels.family import Array


def bf16_bits(values: Array) -> Array:
    """Values as the bits of bfloat16, rounded to nearest even; NaN stays NaN.

    Args:
        values: float32, or bfloat16 of a registered numpy type.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, quiet, rounded).astype(np.uint16)


def packed_pairs(weights: Array, groups: int, sets: Sequence[int], lanes: int) -> Array:
    """Weights in order of use.

    Args:
        weights: [K, C/G, KH, KW], float32 or bfloat16.
        groups: G.
        sets: output blocks of each set of the whole tensor, in order; empty when groups share
            blocks.
        lanes: channels per block.

    Returns:
        Flat bytes: [set][input block][kh][kw][pair][block of set][output lane][2] of bfloat16.
    """
    bits = bf16_bits(weights)
    if sets:
        return packed_sets(_pair_order(blocked_weights(bits, groups, lanes)), sets)
    blocks = mixed_blocks(bits, groups, lanes)
    return np.concatenate([_pair_order(block).reshape(-1) for block in blocks])


def _pair_order(blocked: Array) -> Array:
    """[..., input lane, output lane] -> bytes of [..., pair, (output lane, 2)]."""
    *outer, channels, lanes = blocked.shape
    pairs = blocked.reshape(*outer, channels // 2, 2, lanes).swapaxes(-1, -2)
    flat = np.ascontiguousarray(pairs.astype("<u2")).reshape(*outer, channels // 2, -1)
    return flat.view(np.uint8)
