"""Packing of 8-bit weights for dot products, with the corrections of flipped activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builder_host.kernels.conv_direct.weights import blocked_weights, mixed_blocks, packed_sets
from builder_host.kernels.family import Array
from builder_host.targets.target import CpuTarget


def packed_weights(
    weights: Array, groups: int, sets: Sequence[int], target: CpuTarget, x_is_signed: bool
) -> Array:
    """Corrections and weights as the kernel reads them.

    Args:
        weights: INT8 [K, C/G, KH, KW].
        groups: G.
        sets: output blocks of each set of the whole tensor, in order; empty when groups share
            blocks, which are then dense with zeros between groups.
        target: decides the kind of dot product.
        x_is_signed: whether activations are INT8, not UINT8.

    Returns:
        Flat bytes: corrections (int32) when the dot product flips, then the weights.
    """
    lanes = target.vector_elems
    if sets:
        blocked = blocked_weights(weights, groups, lanes)
        blocks = [blocked[i : i + 1] for i in range(len(blocked))]
        body = packed_sets(dot_order(blocked, target), sets)
    else:
        blocks = mixed_blocks(weights, groups, lanes)
        body = np.concatenate([dot_order(block, target).reshape(-1) for block in blocks])
    factor = flip_factor(target, x_is_signed)
    if factor == 0:
        return body
    return np.concatenate([_corrections(blocks, factor).reshape(-1).view(np.uint8), body])


def flip_factor(target: CpuTarget, x_is_signed: bool) -> int:
    """Multiple of the sum of weights to add where the dot product reads x off by 128, else 0."""
    if target.int8_dot == "vnni" and x_is_signed:
        return -128
    return 128 if target.int8_dot == "sdot" and not x_is_signed else 0


def dot_order(blocked: Array, target: CpuTarget) -> Array:
    """Quads of input channels in the order of `ep_dot_load_weights`.

    Args:
        blocked: INT8 [output block, input block, kh, kw, input lane, output lane].
        target: decides the kind of dot product.

    Returns:
        uint8 [output block, input block, kh, kw, quad, bytes].
    """
    *outer, channels, lanes = blocked.shape
    quads = blocked.reshape(*outer, channels // 4, 4, lanes)
    if target.int8_dot != "wide":
        ordered = quads.swapaxes(-1, -2)  # [lane][channel]
    elif target.isa == "neon":
        ordered = quads.astype("<i2")  # [channel][lane]
    else:
        pairs = quads.reshape(*outer, channels // 4, 2, 2, lanes)  # channel 2 * i + parity
        ordered = np.moveaxis(pairs, -3, -1).astype("<i2")  # [parity][lane][i]
    flat = np.ascontiguousarray(ordered).reshape(*outer, channels // 4, -1)
    return flat.view(np.uint8)


def _corrections(blocks: Sequence[Array], factor: int) -> Array:
    """int32 [output block, all taps | kernel rows | taps, lane]."""
    rows = []
    for block in blocks:
        taps = factor * block[0].sum(axis=(0, 3), dtype=np.int64)  # [kh, kw, lane]
        kernel_rows = taps.sum(axis=1)
        total = kernel_rows.sum(axis=0, keepdims=True)
        rows.append(np.concatenate([total, kernel_rows, taps.reshape(-1, taps.shape[2])]))
    return np.stack(rows).astype("<i4")
