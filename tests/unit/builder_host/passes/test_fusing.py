"""Passes that join layers: pointwise chains, epilogues, siblings; and the whole pipeline."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import assert_kept, convolution, kinds, random

from builder_host.expressions import (
    BINARY_OPS,
    UNARY_OPS,
    Binary,
    Const,
    Input,
    Select,
    Unary,
    evaluate,
    num_operations,
    relu,
    text,
)
from builder_host.network.dump import describe
from builder_host.network.network import Network
from builder_host.passes import (
    fuse_epilogue,
    fuse_pointwise,
    merge_sibling_convolutions,
    to_pointwise,
)
from builder_host.passes.expression_rewrite import affine_parts, ordered, simplify
from builder_host.passes.pipeline import PASSES, run_passes
from planformat.datatypes import DataType

FLOAT32_ROUNDING = 1e-6


@pytest.fixture
def network():
    return Network()


def as_fused(network):
    to_pointwise.run(network)
    fuse_pointwise.run(network)
    return fuse_epilogue.run(network)


# --- expressions -----------------------------------------------------------------------------

SAFE_UNARY = ["neg", "abs", "exp", "tanh", "sigmoid", "floor", "sign", "recip", "sqrt"]
SAFE_BINARY = ["add", "sub", "mul", "div", "min", "max", "pow"]
LEAVES = st.one_of(
    st.integers(0, 1).map(Input),
    st.sampled_from([0.0, 1.0, 2.0, 0.5, -1.0, 3.0, -np.inf, np.inf]).map(Const),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Unary, st.sampled_from(SAFE_UNARY), inner),
        st.builds(Binary, st.sampled_from(SAFE_BINARY), inner, inner),
        st.builds(
            Select, st.builds(Binary, st.sampled_from(["lt", "ge"]), inner, inner), inner, inner
        ),
    ),
    max_leaves=8,
)


def value(expr, operands):
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(evaluate(expr, operands), dtype=np.float64), (5,))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EXPRESSIONS)
def test_simplified_expressions_are_equal_and_no_larger_after_one_more_round(expr):
    operands = [np.asarray([0.5, 1.0, 2.0, 3.5, 7.0]), np.asarray([1.5, 0.25, 1.0, 4.0, 2.0])]
    simple = simplify(expr)
    assert simplify(simple) == simple
    found, expected = value(simple, operands), value(expr, operands)
    # reciprocals and powers round once more; steps and comparisons of such values may flip
    if not {"floor", "sign", "select"} & set(re.findall(r"[a-z]+", text(expr))):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (Binary("mul", Const(1.0), Input(0)), "x0"),
        (Binary("pow", Input(0), Const(2.0)), "mul(x0,x0)"),
        (Binary("pow", Input(0), Const(0.5)), "sqrt(x0)"),
        (Unary("recip", Unary("sqrt", Input(0))), "rsqrt(x0)"),
        (relu(relu(Input(0))), "max(x0,0x0.0p+0)"),
        (Binary("add", Const(2.0), Const(3.0)), "0x1.4000000000000p+2"),
        (Binary("div", Input(0), Const(4.0)), "mul(x0,0x1.0000000000000p-2)"),
        (Binary("mul", Input(0), Const(0.0)), "mul(x0,0x0.0p+0)"),  # NaN * 0 is NaN
    ],
)
def test_simplify(expr, expected):
    assert text(simplify(expr)) == expected


def test_commutative_operands_are_ordered_by_input():
    expr = relu(Binary("add", Input(2), Binary("add", Const(1.0), Input(0))))
    assert text(ordered(expr)) == "max(add(add(x0,0x1.0000000000000p+0),x2),0x0.0p+0)"
    assert ordered(Binary("sub", Input(1), Input(0))) == Binary("sub", Input(1), Input(0))


def test_affine_parts():
    x, y = Input(0), Input(1)
    expr = Binary("sub", Const(3.0), Binary("mul", Binary("add", x, y), Const(2.0)))
    scale, shift = affine_parts(expr, 0)
    operands = [np.asarray(5.0), np.asarray(7.0)]
    assert evaluate(scale, operands) == -2
    assert evaluate(shift, operands) == 3 - 14
    assert affine_parts(Binary("mul", x, x), 0) is None
    assert affine_parts(Unary("exp", x), 0) is None
    assert affine_parts(Binary("div", y, x), 0) is None


def test_every_operation_can_be_rewritten():
    for op in UNARY_OPS:
        simplify(Unary(op, Const(0.5)))
    for op in BINARY_OPS:
        simplify(Binary(op, Const(0.5), Const(2.0)))


# --- pointwise -------------------------------------------------------------------------------


def test_each_pointwise_kind_becomes_an_expression(network):
    x = network.add_input("x", (2, 3, 4, 4))
    y = network.add_activation(x, "leaky_relu", alpha=0.1).output
    y = network.add_scale(y, "channel", random(3), random(3), np.ones(3)).output
    y = network.add_parametric_relu(y, random(3, 1, 1)).output
    y = network.add_unary(y, "abs").output
    flag = network.add_elementwise(y, np.full((1, 1, 1, 1), 0.5), "gt").output
    network.mark_output(network.add_select(flag, y, x).output, "y")
    assert_kept(network, to_pointwise.run, 6)
    assert set(kinds(network)) == {"pointwise"}
    assert len(network.layers[1].inputs) == 3  # the power of one is a literal and gone
    assert len(network.layers[4].inputs) == 1
    assert network.layers[4].output.dtype is DataType.BOOL


def test_a_literal_stays_a_tensor_where_the_shape_needs_it(network):
    x = network.add_input("x", (3,))
    wide = np.zeros((2, 1), dtype=np.float32)
    network.mark_output(network.add_elementwise(x, wide, "add").output, "y")
    assert_kept(network, to_pointwise.run, 1, 0.0)
    assert network.outputs[0].shape == (2, 3)


def test_integer_expressions_are_not_simplified_as_reals(network):
    x = network.add_input("x", (4,), DataType.INT64)
    y = network.add_elementwise(x, np.full(4, 3), "div").output
    y = network.add_elementwise(y, np.full(4, 3), "mul").output
    network.mark_output(y, "y")

    def run(net):
        return to_pointwise.run(net) + fuse_pointwise.run(net)

    # fusing would skip the truncation in between, so int64 division must survive as a step
    assert_kept(network, run, None, 0.0)


def test_chains_and_trees_fuse(network):
    x = network.add_input("x", (1, 3, 4, 4))
    a = network.add_unary(x, "exp").output
    b = network.add_elementwise(x, random(3, 1, 1), "mul").output
    y = network.add_elementwise(a, b, "add").output
    y = network.add_activation(y, "mish").output
    network.mark_output(y, "y")
    to_pointwise.run(network)
    assert_kept(network, fuse_pointwise.run, 3, 0.0)
    assert kinds(network) == ["pointwise"]
    assert len(network.layers[0].inputs) == 2


def test_values_read_twice_or_of_smaller_shape_stay(network):
    x = network.add_input("x", (1, 3, 1, 1))
    z = network.add_input("z", (1, 3, 4, 4))
    small = network.add_unary(x, "exp").output
    y = network.add_elementwise(z, small, "mul").output
    network.mark_output(network.add_unary(y, "sin").output, "a")
    network.mark_output(network.add_unary(y, "cos").output, "b")
    to_pointwise.run(network)
    assert_kept(network, fuse_pointwise.run, 0, 0.0)


def test_fusion_is_bounded(network):
    x = y = network.add_input("x", (4,))
    for _ in range(12):
        y = network.add_activation(y, "mish").output
    network.mark_output(network.add_elementwise(x, y, "add").output, "y")
    to_pointwise.run(network)
    assert_kept(network, fuse_pointwise.run, None, 1e-12)
    assert len(network.layers) > 1
    assert all(
        num_operations(y.params.expr) <= fuse_pointwise.MAX_OPERATIONS for y in network.layers
    )


# --- epilogues -------------------------------------------------------------------------------


def test_bias_activation_and_scale_move_into_the_epilogue(network):
    x = network.add_input("x", (1, 4, 6, 6))
    y = network.add_activation(convolution(network, x, 8), "leaky_relu", alpha=0.1).output
    y = network.add_scale(y, "channel", random(8), random(8)).output
    y = network.add_pooling(y, "average", 2, strides=2).output
    network.mark_output(network.add_activation(y, "tanh").output, "y")
    assert_kept(network, as_fused, 3)
    assert kinds(network) == ["convolution", "pooling"]
    conv = network.layers[0]
    assert len(conv.own_inputs) == 2
    assert [t.shape for t in conv.operands] == [(8, 1, 1)] * 3


def test_matrix_layers_have_channels_last(network):
    x = network.add_input("x", (2, 3, 4))
    y = network.add_elementwise(
        network.add_matrix_multiply(x, random(4, 5)).output, random(5), "add"
    )
    y = network.add_fully_connected(y.output, 6, random(6, 15), random(6)).output
    network.mark_output(network.add_activation(y, "relu").output, "y")
    assert_kept(network, as_fused, 3)
    assert [t.shape for layer in network.layers for t in layer.operands] == [(5,), (6,)]


def test_of_two_convolutions_the_later_one_adds_the_residual(network):
    x = network.add_input("x", (1, 4, 6, 6))
    first, second = convolution(network, x, 8), convolution(network, x, 8, 1)
    y = network.add_elementwise(second, first, "add").output
    network.mark_output(network.add_activation(y, "relu").output, "y")
    assert_kept(network, as_fused, 3)
    assert kinds(network) == ["convolution", "convolution"]
    assert [t for t in network.layers[1].operands if not t.is_constant] == [
        network.layers[0].output
    ]


def test_the_fused_layer_moves_to_where_its_residual_exists(network):
    x = network.add_input("x", (1, 4, 6, 6))
    early = convolution(network, x, 4)
    late = network.add_softmax(x).output
    network.mark_output(network.add_elementwise(early, late, "add").output, "y")
    assert_kept(network, as_fused, 2)
    assert kinds(network) == ["softmax", "convolution"]


@pytest.mark.parametrize("reason", ["two readers", "an output", "broadcast", "other shape", "type"])
def test_what_does_not_qualify_is_not_fused(network, reason):
    x = network.add_input("x", (1, 4, 6, 6))
    y = convolution(network, x, 4)
    if reason == "an output":
        network.mark_output(y, "raw")
    if reason == "two readers":
        network.mark_output(network.add_softmax(y).output, "other")
    if reason == "broadcast":
        y = network.add_elementwise(y, network.add_input("z", (1, 4, 1, 1)), "mul").output
    elif reason == "other shape":
        y = network.add_elementwise(y, network.add_input("z", (3, 4, 6, 6)), "mul").output
    elif reason == "type":
        y = network.add_elementwise(y, np.float32(0), "gt").output
    else:
        y = network.add_activation(y, "relu").output
    network.mark_output(y, "y")
    assert_kept(network, as_fused, 1)  # the bias alone
    assert "pointwise" in kinds(network)


# --- siblings --------------------------------------------------------------------------------


def merged(network):
    as_fused(network)
    return merge_sibling_convolutions.run(network)


def test_siblings_merge(network):
    x = network.add_input("x", (1, 4, 6, 6))
    a, b, c = (
        network.add_activation(convolution(network, x, maps, 1, seed=maps), "relu").output
        for maps in (16, 48, 20)  # 20 is no multiple of 16
    )
    for tensor in (a, b, c):
        convolved = convolution(network, tensor, 4)
        network.mark_output(convolved, f"y{tensor.shape[1]}")
    assert_kept(network, merged, 2)
    assert kinds(network).count("slice") == 2
    both = next(y for y in network.layers if " || " in y.name)
    assert both.output.shape == (1, 64, 6, 6)
    assert both.inputs[2].shape == (64, 1, 1)


def test_siblings_of_other_kind_or_fate_stay(network):
    x = network.add_input("x", (1, 4, 6, 6))
    parts = [
        network.add_activation(convolution(network, x, 16, 1), "relu").output,
        network.add_activation(convolution(network, x, 16, 1), "relu").output,
    ]
    network.mark_output(network.add_concatenation(parts).output, "joined")
    plain = convolution(network, x, 16, 1)
    other = network.add_activation(convolution(network, x, 16, 1), "tanh").output
    network.mark_output(network.add_softmax(plain).output, "a")
    network.mark_output(network.add_softmax(other).output, "b")
    assert_kept(network, merged, 0)


# --- all of them -----------------------------------------------------------------------------


def small_network():
    network = Network("small")
    x = network.add_input("x", (1, 3, 16, 16), DataType.FLOAT16)
    y = network.add_cast(x, DataType.FLOAT32).output
    y = network.add_padding(y, (1, 1), (1, 1)).output
    y = network.add_activation(
        network.add_scale(convolution(network, y, 16, pads=0), "channel", random(16), random(16))
        .output,
        "relu",
    ).output  # fmt: skip
    branch = network.add_scale(convolution(network, y, 32, 1), "channel", random(32), random(32))
    main = convolution(network, convolution(network, y, 16), 32)
    y = network.add_elementwise(main, branch.output, "add").output
    y = network.add_activation(y, "hard_swish").output
    y = network.add_reduce(y, "mean", (2, 3), keep_dims=False).output
    y = network.add_elementwise(
        network.add_matrix_multiply(y, random(32, 10)).output, random(10), "add"
    ).output
    network.mark_output(network.add_softmax(y).output, "prob")
    return network


def test_the_pipeline_keeps_what_a_network_computes_and_is_repeatable():
    network, seen = small_network(), []
    assert_kept(
        network,
        lambda net: len(run_passes(net, lambda i, name, _: seen.append((i, name)))),
        len(PASSES),
        FLOAT32_ROUNDING,
    )
    assert kinds(network) == [
        "cast", "convolution", "convolution", "convolution", "convolution", "pooling", "reshape",
        "fully_connected", "softmax",
    ]  # fmt: skip
    assert seen[0] == (0, "imported")
    assert seen[1:] == [(i, name) for i, (name, _) in enumerate(PASSES, start=1)]
    again = small_network()
    run_passes(again)
    assert describe(again) == describe(network)
