"""Which requests belong to which profile."""

from __future__ import annotations

from planformat.datatypes import DataType, TensorFormat
from planformat.plan import Binding, Profile
from runtime_edge.serve.lanes import MAX_SPLITS, find_lanes, metadata_shape

X = Binding("x", True, DataType.FLOAT32)
Y = Binding("y", False, DataType.FLOAT32)


def profile(name, *shapes):
    return Profile(name, shapes, (), 0, 0)


def test_a_batch_is_found_whatever_the_order_of_profiles():
    lanes = find_lanes((X, Y), [profile("b8", (8, 3), (8, 2)), profile("b1", (1, 3), (1, 2))])
    assert [(lane.profiles, lane.rows, lane.is_batched) for lane in lanes] == [
        (("b1", "b8"), (1, 8), True)
    ]
    (lane,) = lanes
    assert lane.rows_of([(5, 3)]) == 5
    assert lane.rows_of([(0, 3)]) is None
    assert lane.rows_of([(5, 4)]) is None
    assert lane.rows_of([(8 * MAX_SPLITS + 1, 3)]) is None
    assert lane.output_shape(1, 5) == (5, 2)
    assert metadata_shape(lanes, 1) == [-1, 2]


def test_one_profile_takes_its_exact_shape():
    (lane,) = find_lanes((X, Y), [profile("b8", (8, 3), (8, 2))])
    assert not lane.is_batched
    assert lane.rows_of([(8, 3)]) == 1
    assert lane.rows_of([(7, 3)]) is None


def test_different_sizes_are_lanes_of_their_own():
    lanes = find_lanes((X, Y), [profile("s", (1, 32), (1, 2)), profile("l", (1, 64), (1, 2))])
    assert len(lanes) == 2
    assert metadata_shape(lanes, 0) == [1, -1]
    assert metadata_shape(lanes, 1) == [1, 2]


def test_a_binding_without_the_batch_forbids_it():
    w = Binding("w", True, DataType.FLOAT32)
    lanes = find_lanes(
        (X, w, Y), [profile("b1", (1, 3), (5,), (1, 2)), profile("b2", (2, 3), (5,), (2, 2))]
    )
    assert [lane.is_batched for lane in lanes] == [False, False]


def test_two_inputs_must_have_the_same_rows():
    (lane,) = find_lanes(
        (X, X, Y), [profile("b1", (1, 3), (1, 4), (1, 2)), profile("b4", (4, 3), (4, 4), (4, 2))]
    )
    assert lane.rows_of([(2, 3), (2, 4)]) == 2
    assert lane.rows_of([(2, 3), (3, 4)]) is None


def test_blocked_formats_are_flat():
    blocked = Binding("x", True, DataType.FLOAT32, TensorFormat.NCHW8C)
    (lane,) = find_lanes((blocked, Y), [profile("p", (1, 3, 2, 2), (1, 2))])
    assert lane.shapes[0] == (32,)
