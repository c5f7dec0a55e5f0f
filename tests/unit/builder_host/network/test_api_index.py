"""The add methods for positions known at run time, against plain NumPy."""

import numpy as np
import pytest
from support.networks import random

from builder_host.errors import NetworkError
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from planformat.datatypes import DataType

X = random(4, 5)
WHERE = np.asarray([[0, -1, 2, 7, 1]])


def outcome(build):
    network = Network()
    layer = build(network, network.add_input("x", X.shape))
    network.mark_output(layer.output, "y")
    return evaluate_network(network, {"x": X})["y"]


def test_gathers_count_from_the_end_and_give_zero_out_of_range():
    got = outcome(lambda n, x: n.add_gather_elements(x, WHERE, -2))
    assert got.tolist() == [[X[0, 0], X[3, 1], X[2, 2], 0, X[1, 4]]]
    got = outcome(lambda n, x: n.add_gather_nd(x, np.asarray([[1, 2], [-1, 0], [9, 0]])))
    np.testing.assert_array_equal(got, [X[1, 2], X[3, 0], 0])


def test_scatters_replace_or_join():
    got = outcome(lambda n, x: n.add_scatter_elements(x, WHERE, np.ones((1, 5)), reduction="add"))
    expected = X.astype(np.float64)
    for column, row in enumerate([0, 3, 2, None, 1]):
        if row is not None:
            expected[row, column] += 1
    np.testing.assert_array_equal(got, expected)
    got = outcome(lambda n, x: n.add_scatter_nd(x, np.asarray([[2]]), np.zeros((1, 5))))
    assert not got[2].any()
    np.testing.assert_array_equal(got[[0, 1, 3]], X[[0, 1, 3]])
    with pytest.raises(NetworkError, match="'sum' is not one of none, add, mul, max, min"):
        outcome(lambda n, x: n.add_scatter_nd(x, WHERE, np.zeros((1, 5)), reduction="sum"))


def test_running_sums_and_reversed_sequences():
    wide = X.astype(np.float64)
    np.testing.assert_allclose(outcome(lambda n, x: n.add_cumulative(x)), wide.cumsum(axis=1))
    got = outcome(lambda n, x: n.add_reverse_sequence(x, np.asarray([0, 2, 4, 9, 1])))
    for column, length in enumerate([0, 2, 4, 4, 1]):
        np.testing.assert_array_equal(got[:length, column], X[:length, column][::-1])


def test_non_zeros_are_bounded():
    network = Network()
    x = network.add_input("x", (2, 3), DataType.BOOL)
    network.mark_output(network.add_non_zero(x).output, "all")
    network.mark_output(network.add_non_zero(x, 2).output, "two")
    got = evaluate_network(network, {"x": np.asarray([[0, 1, 1], [1, 0, 0]], bool)})
    assert got["all"].tolist() == [[0, 0, 1, -1, -1, -1], [1, 2, 0, -1, -1, -1]]
    assert got["two"].tolist() == [[0, 0], [1, 2]]


def test_overlapping_boxes_are_dropped():
    network = Network()
    boxes = network.add_input("boxes", (1, 4, 4))
    scores = network.add_input("scores", (1, 1, 4))
    layer = network.add_box_selection(boxes, scores, 3, iou_threshold=0.5, score_threshold=0.1)
    network.mark_output(layer.output, "kept")
    corners = np.asarray([[[0, 0, 2, 2], [0, 0.1, 2, 2.1], [5, 5, 6, 6], [8, 8, 9, 9]]])
    best = np.asarray([[[0.5, 0.9, 0.3, 0.1]]])
    got = evaluate_network(network, {"boxes": corners, "scores": best})["kept"]
    assert got.tolist() == [[[1, 2, -1]]]


def test_samples_and_regions():
    network = Network()
    x = network.add_input("x", (1, 1, 4, 5))
    corners = np.asarray([[[[-1.0, -1], [1, 1]]]])
    sampled = network.add_grid_sample(x, corners, align_corners=True)
    network.mark_output(sampled.output, "sampled")
    regions = network.add_constant(np.asarray([[0, 0, 5, 4]], np.float32))
    aligned = network.add_roi_align(x, regions, np.asarray([0]), (1, 1), half_pixel=True)
    network.mark_output(aligned.output, "aligned")
    got = evaluate_network(network, {"x": X.reshape(1, 1, 4, 5)})
    np.testing.assert_allclose(got["sampled"].ravel(), [X[0, 0], X[3, 4]])
    # 4 x 5 samples in one cell lie on the elements' centres: their mean is that of all elements.
    np.testing.assert_allclose(got["aligned"].ravel(), X.astype(np.float64).mean(), rtol=1e-12)
