"""Winograd matrices and the transform of weights."""

from __future__ import annotations

import numpy as np

from builder_host.kernels.family import Array

_KERNELS_AT_ONCE = 2048  # their tiles stay in cache, and products are too small for BLAS threads

# Points of an input tile of 4 or 6 (infinity comes last), and the scale of their rows of G.
# B and A are written out in kernel.c.
_POINTS: dict[int, tuple[tuple[float, float], ...]] = {
    4: ((0, 1), (1, 1 / 2), (-1, 1 / 2)),
    6: ((0, 1 / 4), (1, -1 / 6), (-1, -1 / 6), (2, 1 / 24), (-2, 1 / 24)),
}


def weight_matrix(in_tile: int, kernel: int) -> Array:
    """G [in_tile, kernel] in float64: rows of scaled powers of the points, last the top power."""
    rows = [[scale * point**power for power in range(kernel)] for point, scale in _POINTS[in_tile]]
    return np.array([*rows, [0.0] * (kernel - 1) + [1.0]])


def transformed_weights(weights: Array, out_tile: int) -> Array:
    """U = G w G^T in float64, rounded once.

    Args:
        weights: float32 [K, C, r, r], r 3 or 5.
        out_tile: m of F(m x m, r x r); m + r - 1 is 4 or 6.

    Returns:
        float32 [K, C, m + r - 1, m + r - 1].
    """
    kernel = weights.shape[2]
    in_tile = out_tile + kernel - 1
    transposed = np.ascontiguousarray(weight_matrix(in_tile, kernel).T)
    flat = weights.reshape(-1, kernel, kernel)
    tiles = np.empty((len(flat), in_tile, in_tile), np.float32)
    for first in range(0, len(flat), _KERNELS_AT_ONCE):
        part = flat[first : first + _KERNELS_AT_ONCE].astype(np.float64)
        # Both products have few columns and many rows: one multiplication for all kernels each.
        columns = (part.transpose(0, 2, 1).reshape(-1, kernel) @ transposed).reshape(
            part.shape[0], kernel, in_tile
        )
        rows = columns.transpose(0, 2, 1).reshape(-1, kernel) @ transposed
        tiles[first : first + _KERNELS_AT_ONCE] = rows.reshape(-1, in_tile, in_tile)
    return tiles.reshape(*weights.shape[:2], in_tile, in_tile)
