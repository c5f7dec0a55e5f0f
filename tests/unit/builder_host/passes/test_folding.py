"""Passes that make work at build time: dead layers, constants, identities, types, weights, pads."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks import assert_kept, convolution, kinds, random

from builder_host.expressions import Binary, Const, Input
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.priorbox import PriorBoxParams
from builder_host.network.network import Network
from builder_host.passes import (
    fold_batch_norm_scale,
    fold_constants,
    fold_padding,
    fuse_fully_connected,
    reduce_to_pooling,
    remove_dead_layers,
    remove_identities,
    shuffle_to_slice,
    to_pointwise,
    widen_half,
    widen_rank3,
)
from planformat.datatypes import DataType

FLOAT32_ROUNDING = 1e-6  # folded weights are rounded to float32: 2^-24 each, sums of tens of terms


@pytest.fixture
def network():
    return Network()


def folded_scale(network):
    to_pointwise.run(network)
    return fold_batch_norm_scale.run(network)


def test_dead_layers_go(network):
    x = network.add_input("x", (1, 4))
    network.add_activation(network.add_activation(x, "relu").output, "tanh")
    network.mark_output(network.add_activation(x, "sigmoid").output, "y")
    assert_kept(network, remove_dead_layers.run, 2, 0.0)
    assert kinds(network) == ["activation"]


def test_constants_fold_and_are_rounded_once(network):
    x = network.add_input("x", (3,), DataType.FLOAT16)
    a = network.add_constant(np.asarray([1e-4, 2, 3], dtype=np.float16))
    b = network.add_unary(network.add_elementwise(a, a, "mul").output, "sqrt").output
    network.mark_output(network.add_elementwise(x, b, "mul").output, "y")
    assert fold_constants.run(network) == 2
    (layer,) = network.layers
    np.testing.assert_array_equal(layer.inputs[1].values[1:], [2, 3])
    assert layer.inputs[1].values.dtype == np.float16


def test_constants_that_are_outputs_or_would_explode_stay(network):
    x = network.add_input("x", (1 << 25,))
    a = network.add_constant(np.ones(1, dtype=np.float32))
    huge = network.add_broadcast(a, (1 << 25,)).output  # 128 MiB
    network.mark_output(network.add_elementwise(x, huge, "add").output, "y")
    network.mark_output(network.add_unary(a, "exp").output, "e")
    assert fold_constants.run(network) == 0


def test_prior_boxes_fold_although_their_inputs_are_not_constant(network):
    x = network.add_input("x", (1, 3, 8, 8))
    feature = network.add_pooling(x, "max", 4, strides=4).output
    prior = network.add_layer("priorbox", PriorBoxParams((2.0,)), [feature, x]).output
    network.mark_output(network.add_unary(prior, "neg").output, "y")
    assert_kept(network, fold_constants.run, 2 - 1, FLOAT32_ROUNDING)


def test_identities_and_chains_go(network):
    x = network.add_input("x", (2, 3, 4))
    y = network.add_transpose(x, (1, 2, 0)).output
    y = network.add_transpose(y, (2, 0, 1)).output  # cancels
    y = network.add_reshape(network.add_reshape(y, (6, 4)).output, (2, 3, 4)).output
    y = network.add_cast(network.add_slice(y, (0, 0, 0), (2, 3, 4)).output, y.dtype).output
    y = network.add_concatenation([network.add_padding(y, (0,), (0,)).output]).output
    y = network.add_unary(y, "exp").output
    network.mark_output(network.add_broadcast(y, (2, 3, 4)).output, "out")
    assert_kept(network, remove_identities.run, None, 0.0)
    assert kinds(network) == ["unary"]
    assert network.layers[0].inputs == [x]


def test_an_identity_between_input_and_output_stays(network):
    x = network.add_input("x", (2, 3))
    network.mark_output(network.add_reshape(x, (2, 3)).output, "y")
    assert_kept(network, remove_identities.run, 0, 0.0)


def test_moves_of_single_extents_become_reshapes(network):
    x = network.add_input("x", (1, 5, 1, 4))
    a = network.add_transpose(x, (0, 2, 1, 3)).output
    b = network.add_reduce(x, "mean", (2,), keep_dims=False).output
    c = network.add_transpose(x, (0, 3, 2, 1)).output
    for number, tensor in enumerate((a, b, c)):
        network.mark_output(tensor, f"y{number}")
    assert_kept(network, remove_identities.run, 2, 0.0)
    assert kinds(network) == ["reshape", "reshape", "transpose"]


def test_only_lossless_casts_are_skipped(network):
    x = network.add_input("x", (2,), DataType.FLOAT16)
    wide = network.add_cast(network.add_cast(x, DataType.FLOAT32).output, DataType.FLOAT16).output
    y = network.add_input("y", (2,))
    narrow = network.add_cast(network.add_cast(y, DataType.INT8).output, DataType.FLOAT32).output
    network.mark_output(network.add_unary(wide, "neg").output, "a")
    network.mark_output(narrow, "b")
    assert_kept(network, remove_identities.run, None, 0.0)
    assert kinds(network).count("cast") == 2


def test_half_tensors_are_widened_between_casts(network):
    x = network.add_input("x", (1, 2, 4, 4), DataType.FLOAT16)
    weights = network.add_constant(random(3, 2, 1, 1).astype(np.float16))
    ones = (1, 1)
    y = network.add_layer(
        "convolution", ConvolutionParams(ones, (0, 0), (0, 0), ones), [x, weights]
    ).output
    y = network.add_cast(network.add_cast(y, DataType.FLOAT32).output, DataType.FLOAT16).output
    network.mark_output(y, "y")
    assert_kept(network, widen_half.run, None, 0.0)
    assert (x.dtype, network.outputs[0].dtype) == (DataType.FLOAT16, DataType.FLOAT16)
    remove_identities.run(network)
    assert kinds(network) == ["cast", "convolution", "cast"]
    assert network.layers[1].output.dtype is DataType.FLOAT32
    assert widen_half.run(Network()) == 0


@pytest.mark.parametrize("kind", ["convolution", "grouped", "deconvolution", "fully_connected"])
def test_batch_norm_folds_into_what_precedes_it(network, kind):
    x = network.add_input("x", (2, 4, 5, 5))
    if kind == "deconvolution":
        y = network.add_deconvolution(x, 6, 3, random(4, 3, 3, 3), random(6), groups=2).output
    elif kind == "fully_connected":
        y = network.add_fully_connected(x, 6, random(6, 100)).output
    else:
        y = convolution(network, x, 6, groups=2 if kind == "grouped" else 1)
    y = network.add_scale(y, "channel", random(6, seed=3), random(6, seed=4)).output
    y = network.add_elementwise(y, random(6, *(1,) * (y.type.rank - 2), seed=5), "sub").output
    y = network.add_elementwise(y, np.float32(1.7), "div").output
    network.mark_output(network.add_activation(y, "relu").output, "y")
    assert_kept(network, folded_scale, 3, FLOAT32_ROUNDING)
    assert [y.kind for y in network.layers][1:] == ["pointwise"]


def test_what_is_no_scale_per_channel_stays(network):
    x = network.add_input("x", (1, 4, 5, 5))
    y = convolution(network, x, 6)
    y = network.add_elementwise(y, random(5), "mul").output  # along the width
    y = convolution(network, y, 6)
    network.mark_output(y, "raw")  # an output is read by others
    y = network.add_scale(y, "channel", random(6), random(6)).output
    network.mark_output(y, "y")
    assert_kept(network, folded_scale, 0)


def test_overflowing_weights_are_left_alone(network):
    x = network.add_input("x", (1, 2, 3, 3))
    y = convolution(network, x, 2)
    y = network.add_elementwise(y, np.asarray([[[3e38]], [[3e38]]]), "mul").output
    y = network.add_elementwise(y, np.asarray([[[1e30]], [[1e30]]]), "mul").output
    network.mark_output(y, "y")
    assert folded_scale(network) <= 1
    assert all(np.isfinite(t.values).all() for y in network.layers for t in y.inputs[1:])


@pytest.mark.parametrize(("pads", "shift", "folds"), [(0, True, 1), (1, True, 0), (1, False, 1)])
def test_scale_before_a_convolution_folds_where_padding_stays_zero(network, pads, shift, folds):
    x = network.add_input("x", (1, 4, 5, 5))
    y = network.add_scale(x, "channel", random(4) if shift else None, random(4, seed=1)).output
    network.mark_output(convolution(network, y, 6, pads=pads, groups=2), "y")
    assert_kept(network, folded_scale, folds, FLOAT32_ROUNDING)


def test_normalisation_before_a_fully_connected_layer_folds(network):
    x = network.add_input("x", (2, 3, 2, 2))
    y = network.add_pointwise(
        Binary("mul", Binary("sub", Input(0), Const(127.5)), Const(1 / 128)), [x]
    ).output
    network.mark_output(network.add_fully_connected(y, 5, random(5, 12)).output, "y")
    assert_kept(network, folded_scale, 1, FLOAT32_ROUNDING)
    assert kinds(network) == ["fully_connected"]


@pytest.mark.parametrize(
    ("reader", "value", "relu", "folds"),
    [
        ("convolution", 0.0, False, 1),
        ("convolution", 1.0, False, 0),
        ("average", 0.0, False, 1),
        ("average_padded_exclusive", 0.0, False, 0),
        ("average_padded_inclusive", 0.0, False, 1),
        ("max", -np.inf, False, 1),
        ("max", 0.0, False, 0),
        ("max", 0.0, True, 1),
    ],
)
def test_padding_folds_where_it_is_the_same(network, reader, value, relu, folds):
    x = network.add_input("x", (1, 2, 7, 6))
    y = network.add_activation(x, "relu").output if relu else x
    y = network.add_padding(y, (1, 0), (2, 1), value=value).output
    if reader == "convolution":
        y = convolution(network, y, 3)
    else:
        y = network.add_pooling(
            y,
            "max" if reader == "max" else "average",
            3,
            strides=2,
            pads=1 if "padded" in reader else 0,
            count_include_pad=reader.endswith("inclusive"),
        ).output
    network.mark_output(y, "y")
    to_pointwise.run(network)
    assert_kept(network, fold_padding.run, folds)
    assert ("pad" in kinds(network)) == (folds == 0)


def test_padding_that_a_window_would_lie_in_stays(network):
    x = network.add_input("x", (1, 2, 6, 6))
    y = network.add_padding(x, (4, 4), (0, 0), value=-np.inf).output
    network.mark_output(network.add_pooling(y, "max", 2, strides=2).output, "y")
    before = kinds(network)
    assert fold_padding.run(network) == 0
    assert kinds(network) == before


@pytest.mark.parametrize("transposed", [True, False])
def test_product_with_a_constant_matrix_is_fully_connected(network, transposed):
    x = network.add_input("x", (2, 4))
    w = random(3, 4) if transposed else random(4, 3)
    network.mark_output(network.add_matrix_multiply(x, w, transpose_b=transposed).output, "y")
    assert_kept(network, fuse_fully_connected.run, 1)
    assert kinds(network) == ["fully_connected"]


def test_product_of_integers_stays_a_product(network):
    x = network.add_input("x", (2, 4), DataType.INT32)
    w = network.add_constant(np.arange(12, dtype=np.int32).reshape(4, 3))
    network.mark_output(network.add_matrix_multiply(x, w).output, "y")
    assert fuse_fully_connected.run(network) == 0
    assert kinds(network) == ["matrix_multiply"]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("op", ["mean", "max"])
def test_reduction_over_an_image_is_pooling(network, op, keep):
    x = network.add_input("x", (2, 4, 3, 5))
    network.mark_output(network.add_reduce(x, op, (2, 3), keep_dims=keep).output, "y")
    assert_kept(network, reduce_to_pooling.run, 1)
    assert kinds(network)[0] == "pooling"


def test_one_dimensional_networks_run_as_images(network):
    x = network.add_input("x", (2, 4, 16))
    y = network.add_activation(convolution(network, x, 6), "relu").output
    y = network.add_scale(y, "channel", random(6), random(6)).output
    y = network.add_pooling(y, "max", 3, strides=2).output
    y = network.add_deconvolution(y, 3, 4, random(6, 3, 4), strides=2).output
    network.mark_output(y, "y")
    to_pointwise.run(network)
    assert_kept(network, widen_rank3.run, 5)
    assert_kept(network, remove_identities.run)
    assert kinds(network) == [
        "reshape", "convolution", "pointwise", "pointwise", "pooling", "deconvolution", "reshape",
    ]  # fmt: skip


def test_channel_shuffles_become_slices_and_gathers(network):
    x = network.add_input("x", (2, 12, 3, 5))
    mixed = network.add_shuffle(x, reshape=(2, 3, 4, 3, 5)).output
    mixed = network.add_transpose(mixed, (0, 2, 1, 3, 4)).output
    mixed = network.add_reshape(mixed, (2, 12, 3, 5)).output
    network.mark_output(network.add_unary(mixed, "exp").output, "mixed")
    part = network.add_slice(mixed, (0, 3, 0, 0), (2, 3, 3, 5)).output  # every 4th from channel 1
    network.mark_output(network.add_unary(part, "neg").output, "part")
    assert_kept(network, shuffle_to_slice.run, 2, 0.0)
    assert sorted(kinds(network)) == ["gather", "slice", "unary", "unary"]
    (found,) = (y for y in network.layers if y.kind == "slice")
    assert (found.params.starts, found.params.strides) == ((0, 1, 0, 0), (1, 4, 1, 1))
    assert found.inputs == [x]


def test_moves_that_mix_more_than_channels_stay(network):
    x = network.add_input("x", (1, 4, 4, 4))
    network.mark_output(network.add_transpose(x, (0, 2, 1, 3)).output, "a")
    y = network.add_shuffle(x, reshape=(1, 2, 2, 2, 2, 4), second_transpose=(0, 1, 3, 2, 5, 4))
    network.mark_output(network.add_reshape(y.output, (1, 4, 4, 4)).output, "b")
    assert_kept(network, shuffle_to_slice.run, 0, 0.0)
