"""Fourier transforms of known length, as products with constant matrices."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.weights import Array, element_type
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor


@operator("DFT", since=(17, 20))
def dft(node: Node) -> Tensor:
    """The last dimension holds the real part, or the real and the imaginary part."""
    x = node.input(0)
    if node.version < 20:
        stated = node.attr_int("axis", 1)
    else:
        axes = node.optional_ints(2, "axis") or (-2,)
        stated = axes[0]
    axis = node.axis(stated, x.type.rank)
    if axis == x.type.rank - 1:
        node.fail(f"axis {stated} is the one of real and imaginary parts")
    length = node.optional_ints(1, "dft_length")
    is_inverse = bool(node.attr_int("inverse", 0))
    is_onesided = bool(node.attr_int("onesided", 0))
    count = x.shape[axis]
    if is_inverse and is_onesided:
        count = 2 * (count - 1)
    count = length[0] if length else count
    return _transformed(node, x, axis, count, is_inverse=is_inverse, is_onesided=is_onesided)


@operator("STFT", since=(17,))
def stft(node: Node) -> Tensor:
    """Frames of the signal, windowed and transformed."""
    signal = node.input(0)
    if signal.type.rank == 2:
        signal = node.reshape(signal, (*signal.shape, 1))
    step = node.constant_ints(1, "frame_step")[0]
    window = node.optional(2)
    stated = node.optional_ints(3, "frame_length")
    if stated is None and window is None:
        node.fail("neither the window nor the frame length is given")
    length = stated[0] if stated else node.input(2).shape[0]
    if step < 1 or not 1 <= length <= signal.shape[1]:
        node.fail(f"frames of {length} every {step} do not fit {signal.type}")
    count = (signal.shape[1] - length) // step + 1
    node.check_size((count, length))
    places = np.arange(count)[:, None] * step + np.arange(length)
    frames = node.add("gather", GatherParams(1), signal, node.const(places.astype(np.int64)))
    if window is not None:
        frames = node.binary("mul", frames, node.reshape(window, (length, 1)))
    is_onesided = bool(node.attr_int("onesided", 1))
    return _transformed(node, frames, 2, length, is_inverse=False, is_onesided=is_onesided)


def _transformed(
    node: Node, x: Tensor, axis: int, count: int, *, is_inverse: bool, is_onesided: bool
) -> Tensor:
    """DFT of `count` points along an axis; the parts are the last dimension."""
    parts = x.shape[-1]
    if parts not in (1, 2) or count < 1:
        node.fail(f"{x.type} needs a last dimension of 1 or 2, and {count} points are not a DFT")
    if is_onesided and not is_inverse and parts == 2:
        node.fail("a complex signal has no one-sided transform")
    taken = min(x.shape[axis], count // 2 + 1 if is_inverse and is_onesided else count)
    starts, sizes = [0] * x.type.rank, list(x.shape)
    sizes[axis] = taken
    x = node.slice(x, starts, sizes, [1] * x.type.rank)  # values past the points are left out
    node.check_size((taken * parts, 2 * count))
    matrix = _matrix(taken, count, parts, is_inverse=is_inverse, is_onesided=is_onesided)
    order = [*(d for d in range(x.type.rank - 1) if d != axis), axis, x.type.rank - 1]
    moved = node.transpose(x, order)
    rows = node.reshape(moved, (math.prod(moved.shape[:-2]), taken * parts))
    product = node.add("matrix_multiply", MatrixMultiplyParams(), rows, node.const(matrix, x.dtype))
    out_parts = 1 if is_inverse and is_onesided else 2
    points = matrix.shape[1] // out_parts
    shaped = node.reshape(product, (*moved.shape[:-2], points, out_parts))
    return node.transpose(shaped, [int(d) for d in np.argsort(order)])


def _matrix(taken: int, count: int, parts: int, *, is_inverse: bool, is_onesided: bool) -> Array:
    """[taken * parts, points * (real, imaginary)] in float64."""
    points = count // 2 + 1 if is_onesided and not is_inverse else count
    # The product of positions modulo the period keeps the angles exact for long transforms.
    angles = np.outer(np.arange(taken), np.arange(points)) % count * (2 * np.pi / count)
    cosine, sine = np.cos(angles), np.sin(angles) * (1 if is_inverse else -1)
    if is_inverse and is_onesided:  # the missing half is the conjugate of this one
        twice = np.where((np.arange(taken) == 0) | (2 * np.arange(taken) == count), 1.0, 2.0)
        columns = [cosine * twice[:, None], -sine * twice[:, None]][:parts]
        return np.stack(columns, axis=1).reshape(taken * parts, points) / count
    of_real = np.stack([cosine, sine], axis=-1)
    of_imaginary = np.stack([-sine, cosine], axis=-1)
    rows = np.stack([of_real, of_imaginary][:parts], axis=1)
    return rows.reshape(taken * parts, 2 * points) / (count if is_inverse else 1)


@operator("MelWeightMatrix", since=(17,))
def mel_weight_matrix(node: Node) -> Tensor:
    """Triangles between bins that are evenly spaced in mels; all inputs must be known."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")
    bins, length, rate, low, high = (
        float(node.constant(i, name).ravel()[0]) for i, name in enumerate(names)
    )
    if bins < 1 or length < 1 or rate <= 0 or not 0 <= low <= high <= rate:
        node.fail(f"{bins:g} bins from {low:g} to {high:g} Hz at {rate:g} Hz are not possible")
    node.check_size((int(length) // 2 + 1, int(bins)))
    edges_mel = [2595 * math.log10(1 + hertz / 700) for hertz in (low, high)]
    step = (edges_mel[1] - edges_mel[0]) / (bins + 2)
    hertz = 700 * (10 ** ((edges_mel[0] + step * np.arange(int(bins) + 2)) / 2595) - 1)
    edges = ((length + 1) * hertz // rate).astype(np.int64)
    matrix = np.zeros((int(length) // 2 + 1, int(bins)))
    places = np.arange(matrix.shape[0])
    for number in range(int(bins)):
        first, centre, last = (int(e) for e in edges[number : number + 3])
        rising = (places >= first) & (places <= centre)
        falling = (places >= centre) & (places < last)
        if centre == first:
            matrix[places == centre, number] = 1
        else:
            matrix[rising, number] = (places[rising] - first) / (centre - first)
        if last > centre:
            matrix[falling, number] = (last - places[falling]) / (last - centre)
    code = node.attr_int("output_datatype", 1)
    return node.const(matrix, element_type(code, "attribute 'output_datatype'"))
