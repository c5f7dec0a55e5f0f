"""Prior boxes and detection output of SSD on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from builder_host.errors import NetworkError
from builder_host.network.layers import definition
from builder_host.network.layers.detection_output import DetectionOutputParams, decode_boxes
from builder_host.network.layers.priorbox import PriorBoxParams
from builder_host.network.tensor_type import TensorType


def test_prior_boxes_of_one_cell():
    params = PriorBoxParams((4.0,), (16.0,), (2.0,), variances=(0.1, 0.1, 0.2, 0.2))
    maps = [np.zeros((1, 8, 1, 1)), np.zeros((1, 3, 10, 20))]
    (inferred,) = definition("priorbox").infer(params, [TensorType(m.shape) for m in maps])
    (value,) = definition("priorbox").reference(params, maps)
    assert inferred.shape == value.shape == (1, 2, 4 * 4)
    wide, low = 4 * math.sqrt(2) / 2, 4 / math.sqrt(2) / 2
    halves = [(2, 2), (4, 4), (wide, low), (low, wide)]  # width, height around (10, 5)
    expected = [[(10 - w) / 20, (5 - h) / 10, (10 + w) / 20, (5 + h) / 10] for w, h in halves]
    np.testing.assert_allclose(value[0, 0].reshape(-1, 4), expected, rtol=1e-12)
    assert value[0, 1].reshape(-1, 4).tolist() == [[0.1, 0.1, 0.2, 0.2]] * 4


def test_prior_boxes_run_over_columns_first_and_can_be_clipped():
    params = PriorBoxParams((4.0,), clip=True, step_height=2.0, step_width=2.0)
    maps = [np.zeros((1, 1, 1, 2)), np.zeros((1, 3, 4, 4))]
    (value,) = definition("priorbox").reference(params, maps)
    assert value[0, 0].reshape(-1, 4).tolist() == [[0, 0, 0.75, 0.75], [0.25, 0, 1, 0.75]]


PRIORS = np.asarray([[0.1, 0.1, 0.3, 0.3], [0.11, 0.1, 0.31, 0.3], [0.6, 0.6, 0.8, 0.9]])


def detections(params, loc, conf, images=1):
    prior = np.stack([PRIORS.reshape(-1), np.full(12, 0.5)])[None]
    arrays = [np.asarray(loc, float).reshape(images, -1), np.asarray(conf, float), prior]
    arrays[1] = arrays[1].reshape(images, -1)
    (inferred,) = definition("detection_output").infer(
        params, [TensorType(a.shape) for a in arrays]
    )
    (value,) = definition("detection_output").reference(params, arrays)
    assert inferred.shape == value.shape
    return value[0, 0]


def test_overlapping_boxes_of_a_class_are_suppressed():
    params = DetectionOutputParams(2, nms_threshold=0.5, keep_top_k=4, confidence_threshold=0.1)
    conf = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    rows = detections(params, np.zeros((3, 4)), conf)
    np.testing.assert_allclose(
        rows[:2], [[0, 1, 0.9, *PRIORS[0]], [0, 1, 0.7, *PRIORS[2]]], rtol=1e-12
    )
    assert (rows[2:] == -1).all()


def test_best_over_all_classes_are_kept_and_listed_by_class():
    params = DetectionOutputParams(3, nms_threshold=0.5, keep_top_k=2, confidence_threshold=0.1)
    conf = [[0.0, 0.3, 0.9], [0.0, 0.0, 0.0], [0.0, 0.8, 0.2]]
    rows = detections(params, np.zeros((3, 4)), conf)
    assert rows[:, :3].tolist() == [[0, 1, 0.8], [0, 2, 0.9]]


def test_images_follow_one_another():
    params = DetectionOutputParams(2, nms_threshold=0.5, keep_top_k=1, confidence_threshold=0.5)
    conf = [[[1.0, 0.0]] * 3, [[0.0, 0.9], [0.0, 0.8], [0.0, 0.0]]]
    rows = detections(params, np.zeros((2, 3, 4)), conf, images=2)
    assert rows[:, 0].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("code_type", "expected"),
    [
        ("corner", [1.5, 2.5, 5.5, 9.0]),
        ("corner_size", [3.0, 5.0, 7.0, 14.0]),
        ("center_size", [1.0 + 2 + 2 - 2 * math.e**0.5, 2 + 3 + 3 - 3 * math.e, 0, 0]),
    ],
)
def test_codes(code_type, expected):
    prior = np.asarray([[1.0, 2.0, 5.0, 8.0]])
    codes, variances = np.asarray([[1.0, 1.0, 1.0, 2.0]]), np.full((1, 4), 0.5)
    params = DetectionOutputParams(2, code_type=code_type)
    (box,) = decode_boxes(params, codes, prior, variances)
    if code_type == "center_size":
        expected[2], expected[3] = 5 + 2 * math.e**0.5, 8 + 3 * math.e
    np.testing.assert_allclose(box, expected, rtol=1e-12)


def test_counts_that_do_not_fit_are_named():
    params = DetectionOutputParams(3)
    shapes = [(1, 12), (1, 8), (1, 2, 12)]
    with pytest.raises(NetworkError, match="3 priors of 3 classes need 9"):
        definition("detection_output").infer(params, [TensorType(s) for s in shapes])
