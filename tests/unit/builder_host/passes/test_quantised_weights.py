"""Weights in 8 bits: nearest levels but for close calls, so that the sums of filters stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder_host.network.network import Network
from builder_host.passes.quantised_weights import keep_sums, quantised_weights


def layer_of(kind, weights):
    network = Network()
    if kind == "convolution":
        x = network.add_input("x", (1, weights.shape[1], 5, 5))
        network.add_convolution(x, weights.shape[0], weights.shape[2], weights)
    else:
        x = network.add_input("x", (*weights.shape[:-2], 3, weights.shape[-2]))
        network.add_matrix_multiply(x, network.add_constant(weights, "w"))
    return network.layers[-1]


@pytest.mark.parametrize(
    ("kind", "shape", "channel", "summed"),
    [
        ("convolution", (6, 7, 3, 3), 0, (1, 2, 3)),
        ("matrix_multiply", (40, 6), 1, (0,)),
        ("matrix_multiply", (2, 40, 6), 2, (1,)),
    ],
)
def test_sums_are_nearest_and_no_weight_moves_by_a_level(kind, shape, channel, summed):
    values = np.random.default_rng(1).gamma(2.0, 1.0, shape).astype(np.float32) - 1
    scales, levels = quantised_weights(layer_of(kind, values))
    assert levels.dtype == np.int8
    assert levels.shape == shape
    others = tuple(i for i in range(len(shape)) if i != channel)
    np.testing.assert_allclose(scales, np.abs(values.astype(np.float64)).max(others) / 127)
    exact = values / scales.reshape([-1 if i == channel else 1 for i in range(len(shape))])
    errors = exact - levels
    assert np.abs(errors).max() < 1.0
    assert np.abs(errors.sum(axis=summed)).max() <= 0.5 + 1e-9
    # few are not at their nearest level: a random walk of errors below 1/2
    assert (np.abs(errors) > 0.5).mean() < 0.1


def test_zeros_stay_and_rows_of_zeros_have_a_scale():
    values = np.random.default_rng(2).normal(0, 1, (4, 5, 3, 3)).astype(np.float32)
    values[:, 2], values[3] = 0.0, 0.0
    scales, levels = quantised_weights(layer_of("convolution", values))
    assert not levels[:, 2].any()
    assert not levels[3].any()
    assert scales[3] == 1.0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.floats(-127, 127, width=32), min_size=4, max_size=4), min_size=1),
)
def test_any_row(rows):
    exact = np.asarray(rows, np.float64)
    whole = np.rint(exact)
    keep_sums(exact, whole)
    assert np.abs(whole).max() <= 127
    assert (np.abs(exact - whole) < 1.0 + 1e-9).all()
    assert (np.abs((exact - whole).sum(axis=1)) <= 0.5 + 1e-9).all()


def test_close_calls_move_first_and_ties_from_the_left():
    exact = np.array([[0.4, 0.45, 0.45, 0.3], [-0.4, -0.45, -0.45, -0.3]])
    whole = np.rint(exact)
    keep_sums(exact, whole)
    assert whole.tolist() == [[0, 1, 1, 0], [0, -1, -1, 0]]
    exact = np.array([[0.45, 0.45, 0.2]])
    whole = np.rint(exact)
    keep_sums(exact, whole)
    assert whole.tolist() == [[1, 0, 0]]


def test_a_constant_picture_keeps_its_value_through_many_filters():
    """What the rule is for: an input that is the same everywhere loses next to nothing."""
    rng = np.random.default_rng(3)
    weights = rng.normal(0, 0.1, (32, 64, 3, 3)).astype(np.float32)
    scales, levels = quantised_weights(layer_of("convolution", weights))
    exact = weights.sum(axis=(1, 2, 3), dtype=np.float64)
    kept = levels.sum(axis=(1, 2, 3), dtype=np.int64) * scales
    nearest = np.rint(weights / scales[:, None, None, None]).sum(axis=(1, 2, 3)) * scales
    assert np.abs(kept - exact).max() <= scales.max() / 2 * 1.001
    assert np.abs(nearest - exact).max() > 5 * np.abs(kept - exact).max()
