"""Winograd matrices and the transform of 3x3 weights."""

from __future__ import annotations

import numpy as np

from builder_host.kernels.family import Array

# G of F(m, 3) for the points 0, 1, -1 (, 2, -2), infinity; B and A are written out in kernel.c.
WEIGHT_MATRICES: dict[int, Array] = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}


def transformed_weights(weights: Array, out_tile: int) -> Array:
    """U = G w G^T in float64, rounded once.

    Args:
        weights: float32 [K, C, 3, 3].
        out_tile: m of F(m x m, 3 x 3): 2 or 4.

    Returns:
        float32 [K, C, m + 2, m + 2].
    """
    matrix = WEIGHT_MATRICES[out_tile]
    return np.asarray(matrix @ weights.astype(np.float64) @ matrix.T, dtype=np.float32)
