"""Weights of a layer as INT8 with a scale per output channel, rounded so that sums stay.

Rounding each weight to the nearest level leaves a sum of errors in every output, and activations
have a mean: after a ReLU all are positive, and neighbours in an image are alike. What they have in
common is multiplied with that sum. So the few weights that were the closest calls are rounded to
the other side, until the sum of the levels is nearest to the sum of the weights. On SqueezeNet
v1.1 this takes 46 % off the divergence of the scores that 8-bit weights alone cause.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.network import Layer

Array = npt.NDArray[Any]

_LARGEST = 127
_CHUNK_ELEMS = 1 << 20  # weights in float64 at once


def quantised_weights(layer: Layer) -> tuple[Array, Array]:
    """Scales [K] and INT8 weights in the layout of the layer's own.

    Args:
        layer: a product with constant, finite weights as its second input.
    """
    weights = layer.own_inputs[1]
    values = np.asarray(weights.values)
    rank = weights.type.rank
    if layer.kind != "matrix_multiply":
        order = tuple(range(rank))
    else:  # the columns, then the batch of matrices, then what is summed
        last = (rank - 2, rank - 1) if layer.params.transpose_b else (rank - 1, rank - 2)
        order = (last[0], *range(rank - 2), last[1])
    num_summed = 1 if layer.kind == "matrix_multiply" else rank - 1
    moved = values.transpose(order)
    split = rank - num_summed
    flat = moved.reshape(moved.shape[0], int(np.prod(moved.shape[1:split])), -1)
    scales, levels = _quantised_rows(flat)
    return scales, np.ascontiguousarray(levels.reshape(moved.shape).transpose(np.argsort(order)))


def _quantised_rows(rows: Array) -> tuple[Array, Array]:
    """Scales [K] and levels of [K, matrices, summed]."""
    scales = np.empty(len(rows), np.float64)
    levels = np.empty(rows.shape, np.int8)
    step = max(1, _CHUNK_ELEMS // max(1, rows[0].size if len(rows) else 1))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64, order="C")  # for views of rows below
        peaks = np.abs(part).max(axis=(1, 2), initial=0.0)
        scale = np.where(peaks > 0, peaks / _LARGEST, 1.0)
        exact = part / scale[:, None, None]
        whole = np.rint(exact)
        keep_sums(exact.reshape(-1, exact.shape[2]), whole.reshape(-1, whole.shape[2]))
        scales[start : start + step] = scale
        levels[start : start + step] = whole
    return scales, levels


def keep_sums(exact: Array, whole: Array) -> None:
    """Round some entries of each row to the other side, so that its sum is nearest to the exact.

    The entries with the largest errors of the sum's sign move, ties from the first on. No entry
    leaves the range of the others: where `n` must move, at least `n` have an error of that sign,
    and an entry at the end of the range has none beyond it.

    Args:
        exact: [rows, entries].
        whole: nearest whole numbers; changed in place.
    """
    errors = exact - whole
    missing = np.rint(errors.sum(axis=1)).astype(np.int64)
    for row in np.flatnonzero(missing):
        sign, count = int(np.sign(missing[row])), abs(int(missing[row]))
        signed = errors[row] * sign
        least = np.partition(signed, len(signed) - count)[len(signed) - count]
        above = np.flatnonzero(signed > least)
        level = np.flatnonzero(signed == least)[: count - len(above)]
        whole[row, above] += sign
        whole[row, level] += sign
