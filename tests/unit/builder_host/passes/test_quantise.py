"""The quantise pass: what is stored in 8 bits, what it computes, what stays float."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import convolution, kinds, random, random_inputs

from builder_host.expressions import Binary, Input, Unary, clip, evaluate, relu
from builder_host.network.editing import check_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network, Tensor
from builder_host.passes import quantise
from builder_host.passes.pipeline import run_passes
from builder_host.passes.quantised_expression import fold_factor, quantised, quantised_values
from planformat.datatypes import DataType

I8, U8, F32 = DataType.INT8, DataType.UINT8, DataType.FLOAT32


def ranges_of(network: Network) -> dict[str, float]:
    """Largest magnitude of every computed tensor for the inputs of the comparison."""
    keep = [t for t in network.tensors() if not t.is_constant and t not in network.outputs]
    values = evaluate_network(network, random_inputs(network), keep=keep)
    return {name: float(np.abs(v).max()) for name, v in values.items()}


def quantised_network(network: Network, **options) -> quantise.Quantisation:
    run_passes(network)
    layers = quantise.quantisable_layers(network)
    options.setdefault("allows_unsigned", True)
    return quantise.run(network, ranges_of(network), layers, **options)


def signal_to_noise_db(network: Network, minimum: float, **options) -> quantise.Quantisation:
    """Quantise; outputs keep their types and this signal-to-quantisation-noise ratio."""
    run_passes(network)
    inputs = random_inputs(network)
    before = evaluate_network(network, inputs)
    types = {t.name: t.type for t in network.outputs}
    done = quantised_network(network, **options)
    check_network(network)
    assert {t.name: t.type for t in network.outputs} == types
    for name, value in evaluate_network(network, inputs).items():
        noise = np.linalg.norm(value - before[name])
        ratio = 20 * np.log10(np.linalg.norm(before[name]) / noise)
        assert ratio > minimum, (name, ratio)
        assert noise > 0, f"{name}: nothing was quantised"
    return done


def tensor_of(network: Network, name: str) -> Tensor:
    return next(t for t in network.tensors() if t.name == name)


def layer_of(network: Network, name: str):
    return next(y for y in network.layers if y.name == name)


@pytest.fixture
def network() -> Network:
    return Network()


def test_chain_stores_eight_bits_between_layers_and_float_at_the_end(network):
    x = network.add_input("x", (2, 4, 9, 9))
    y = network.add_activation(convolution(network, x, 8), "relu").output
    y = network.add_pooling(y, "max", 2, strides=2).output
    network.mark_output(convolution(network, y, 8, seed=3), "y")
    # two 8-bit roundings of weights and activations each: 6.02 * 7 - 10 log10(4) dB, and margin
    done = signal_to_noise_db(network, 30.0)
    assert kinds(network) == ["pointwise", "convolution", "pooling", "convolution"]
    assert [y.output.dtype for y in network.layers] == [I8, U8, U8, F32]
    assert len(done.layers) == 2
    assert network.layers[1].inputs[1].dtype is I8


def test_residual_is_read_in_eight_bits(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = network.add_activation(convolution(network, x, 8), "relu").output
    b = network.add_activation(convolution(network, a, 8, seed=2), "relu").output
    total = network.add_elementwise(convolution(network, b, 8, seed=4), a, "add").output
    y = network.add_activation(total, "relu").output
    network.mark_output(convolution(network, y, 8, seed=6), "y")
    signal_to_noise_db(network, 28.0)
    sums = [y for y in network.layers if any(not t.is_constant for t in y.operands)]
    assert len(sums) == 1
    assert [t.dtype for t in sums[0].operands if not t.is_constant] == [U8]
    assert sums[0].output.dtype is U8


def test_concatenation_shares_one_scale(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = network.add_activation(convolution(network, x, 8), "relu").output
    b = convolution(network, x, 8, seed=2)  # signed: all parts become INT8
    whole = network.add_concatenation([a, b], 1).output
    network.mark_output(convolution(network, whole, 8, seed=4), "y")
    done = signal_to_noise_db(network, 28.0)
    joined = next(y for y in network.layers if y.kind == "concatenation")
    assert {t.dtype for t in [*joined.inputs, joined.output]} == {I8}
    assert len({done.scales[t.name] for t in [*joined.inputs, joined.output]}) == 1


def test_float_readers_get_real_numbers_back(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = network.add_activation(convolution(network, x, 8), "relu").output
    network.mark_output(convolution(network, a, 8, seed=2), "y")
    network.mark_output(network.add_softmax(a, 1).output, "s")
    signal_to_noise_db(network, 28.0)
    softmax = next(y for y in network.layers if y.kind == "softmax")
    assert softmax.inputs[0].dtype is F32
    assert softmax.inputs[0].producer.kind == "pointwise"


def test_average_pooling_reads_and_writes_eight_bits(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = network.add_activation(convolution(network, x, 8), "relu").output
    network.mark_output(convolution(network, a, 4, seed=1), "z")
    b = network.add_pooling(a, "average", 2, strides=2).output
    network.mark_output(convolution(network, b, 8, seed=2), "y")
    signal_to_noise_db(network, 28.0)
    pool = next(y for y in network.layers if y.kind == "pooling")
    assert (pool.inputs[0].dtype, pool.output.dtype) == (U8, U8)


def test_network_outputs_and_wide_tensors_stay_float(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = convolution(network, x, 8)
    network.mark_output(a, "a")
    b = convolution(network, a, 8, seed=2)
    network.mark_output(convolution(network, b, 8, seed=4), "y")
    done = quantised_network(network, wide_tensors=[b.name])
    assert tensor_of(network, "a").dtype is F32
    assert tensor_of(network, b.name).dtype is F32
    assert len(done.layers) == 1


def test_missing_ranges_keep_layers_float(network):
    x = network.add_input("x", (1, 8, 6, 6))
    a = convolution(network, x, 8)
    network.mark_output(convolution(network, a, 8, seed=2), "y")
    run_passes(network)
    known = {"x": 3.0}
    done = quantise.run(network, known, quantise.quantisable_layers(network), allows_unsigned=False)
    assert len(done.layers) == 1
    assert done.without_range == (a.name,)
    assert [y.output.dtype for y in network.layers] == [I8, F32, F32]


def test_products_over_matrices_and_flattened_tensors(network):
    x = network.add_input("x", (3, 8, 2, 2))
    w, b = random(16, 32), random(16, seed=1)
    y = network.add_fully_connected(x, 16, w, b).output
    y = network.add_activation(y, "relu").output
    right = network.add_constant(random(16, 5, seed=2), "right")
    y = network.add_matrix_multiply(y, right).output
    network.mark_output(network.add_softmax(y, 1).output, "y")
    done = signal_to_noise_db(network, 20.0)
    assert len(done.layers) == 2


def test_zero_weights_of_a_channel_and_negative_only_channels(network):
    x = network.add_input("x", (1, 3, 5, 5))
    weights = random(4, 3, 3, 3)
    weights[1] = 0.0
    y = network.add_convolution(x, 4, 3, weights, random(4), pads=1).output
    network.mark_output(y, "y")
    signal_to_noise_db(network, 30.0)
    integers = next(y for y in network.layers if y.kind == "convolution").inputs[1].values
    assert not integers[1].any()
    assert np.abs(integers).max(axis=(1, 2, 3)).tolist() == [127, 0, 127, 127]


def test_sums_beyond_int32_stay_float(network):
    x = network.add_input("x", (1, 70000))
    y = network.add_fully_connected(x, 2, random(2, 70000), random(2)).output
    network.mark_output(y, "y")
    run_passes(network)
    assert quantise.quantisable_layers(network) == []


@given(
    values=st.lists(st.floats(-300, 300), min_size=1, max_size=20),
    scale=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    dtype=st.sampled_from([I8, U8]),
)
def test_expression_and_constants_round_alike(values, scale, dtype):
    low, high = (-127, 127) if dtype is I8 else (0, 255)
    expected = np.clip(np.rint(np.array(values) / scale), low, high)
    got = evaluate(quantised(Input(0), scale, dtype), [np.array(values)])
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(quantised_values(values, scale, dtype), expected)


EXPRESSIONS = (
    Binary("add", Binary("mul", Input(0), Input(1)), Input(2)),
    relu(Binary("add", Binary("mul", Input(0), Input(1)), Input(2))),
    clip(Binary("sub", Binary("mul", Input(0), Input(1)), Input(2)), 0.0, 6.0),
    Unary("sigmoid", Binary("mul", Input(0), Input(1))),
    Binary("add", Binary("mul", Input(0), Input(1)), Input(1)),
    Binary("add", Unary("exp", Input(0)), Binary("mul", Input(1), Input(2))),
)


@settings(deadline=None)
@given(
    expr=st.sampled_from(EXPRESSIONS),
    factor=st.floats(1e-3, 1e3),
    numbers=st.tuples(*[st.floats(-4, 4)] * 3),
)
def test_folded_factor_keeps_the_value(expr, factor, numbers):
    network = Network()
    constants = [network.add_constant(np.float64(v), "c") for v in numbers[1:]]
    folded, factors = fold_factor(expr, factor, constants)
    scaled = [v * factors.get(i, 1.0) for i, v in enumerate(numbers)]
    expected = evaluate(expr, [np.array(v) for v in numbers]) * factor
    got = evaluate(folded, [np.array(v) for v in scaled])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_ranges_go_by_the_name_of_the_value_that_a_fused_tensor_holds(network):
    x = network.add_input("x", (1, 8, 6, 6))
    raw = convolution(network, x, 8, name="conv")
    relu_name = network.add_activation(raw, "relu", name="relu").output.name
    y = network.layers[-1].output
    network.mark_output(convolution(network, y, 8, seed=2), "y")
    run_passes(network)
    first = network.layers[0]
    assert network.names_of(first.output) == [relu_name, "conv"]
    ranges = {"x": 3.0, "conv": 100.0, "relu": 12.75}
    done = quantise.run(network, ranges, quantise.quantisable_layers(network), allows_unsigned=True)
    assert done.scales["conv"] == pytest.approx(12.75 / 255)
