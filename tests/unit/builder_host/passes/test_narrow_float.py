"""float16 storage with layers that stay in float32, and values that float16 cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks import convolution, random_inputs

from builder_host.errors import BuilderError
from builder_host.network.editing import check_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes import narrow_float
from builder_host.passes.pipeline import run_passes
from builder_host.precision.rules import apply_precision, parse_rules
from planformat.datatypes import DataType

F32, F16 = DataType.FLOAT32, DataType.FLOAT16


@pytest.fixture
def chain():
    """Input, three convolutions a, b, c with ReLUs; b also adds a; outputs b and c."""
    network = Network()
    x = network.add_input("x", (1, 4, 6, 6))
    a = network.add_activation(convolution(network, x, 4, name="a0"), "relu", name="a").output
    raw = convolution(network, a, 4, seed=2, name="b0")
    b = network.add_elementwise(raw, a, "add", name="b").output
    c = network.add_activation(convolution(network, b, 4, seed=4, name="c0"), "relu", name="c")
    network.mark_output(c.output)
    run_passes(network)
    return network


def types(network):
    return {t.name: t.dtype for y in network.layers for t in y.outputs}


def layer(network, name):
    return next(y for y in network.layers if name in (y.name, *network.names_of(y.output)))


def test_everything_narrow_but_the_bindings(chain):
    inputs = random_inputs(chain)
    before = evaluate_network(chain, inputs)
    narrow_float.run(chain)
    assert [t.dtype for t in (*chain.inputs, *chain.outputs)] == [F32, F32]
    assert {y.output.dtype for y in chain.layers if y.kind == "convolution"} == {F16}
    after = evaluate_network(chain, inputs)  # weights are rounded, sums are exact here
    np.testing.assert_allclose(after["c"], before["c"], rtol=0, atol=0.01 * before["c"].max())


def test_a_wide_layer_stands_between_casts(chain):
    wide = layer(chain, "b")
    narrow_float.run(chain, [wide])
    assert wide.output.dtype is F32
    assert wide.own_inputs[1].dtype is F32
    assert [t.dtype for t in wide.inputs if not t.is_constant] == [F32, F32]
    assert wide.inputs[0] is wide.operands[-1]  # one cast serves both
    reader = layer(chain, "c0") if "c0" in types(chain) else layer(chain, "c")
    assert reader.inputs[0].dtype is F16
    assert [y.kind for y in chain.layers].count("cast") == 4  # input, a up, b down, output


def test_wide_layer_at_the_input_reads_it_directly(chain):
    first = layer(chain, "a")
    narrow_float.run(chain, [first])
    assert first.inputs[0] is chain.inputs[0]


def test_shared_weights_are_kept_for_the_wide_layer():
    network = Network()
    x = network.add_input("x", (1, 4, 6, 6))
    weights = network.add_constant(np.ones((4, 4, 1, 1), np.float32), "w")
    a = network.add_convolution(x, 4, 1, weights).output
    network.mark_output(network.add_convolution(a, 4, 1, weights).output, "y")
    run_passes(network)
    narrow_float.run(network, [network.layers[0]])
    first, second = (y for y in network.layers if y.kind == "convolution")
    assert (first.inputs[1].dtype, second.inputs[1].dtype) == (F32, F16)


def apply(network, precision, largest, **rules):
    return apply_precision(
        network,
        precision,
        device_kind="cuda",
        ranges=None,
        largest=largest,
        tensor_rules=parse_rules(rules.get("tensors", "")),
        layer_rules=parse_rules(rules.get("layers", "")),
    )


def test_overflow_is_reported_per_layer_with_a_way_out(chain):
    seen = {"a": 3.0, "b": 70000.0, "c": 65504.0}
    with pytest.raises(BuilderError, match="1 of the network's values overflow") as error:
        apply(chain, "fp16", seen)
    assert "tensor 'b' reaches 7e+04" in str(error.value)
    assert "--tensor-precision 'b=fp32'" in str(error.value)


def test_the_way_out_keeps_the_value_and_its_readers_wide(chain):
    applied = apply(chain, "fp16", {"b": 70000.0}, tensors="b=fp32")
    assert applied.overflows == ()
    assert (applied.storage, applied.quantisation) == ("fp16", None)
    found = layer(chain, "b").output
    assert found.dtype is F32
    assert all(y.output.dtype is F32 for y in chain.layers if found in y.inputs)
    assert layer(chain, "a").output.dtype is F16


def test_best_keeps_what_overflows_wide_by_itself(chain):
    applied = apply(chain, "best", {"b": 70000.0})
    assert [one.tensor for one in applied.overflows] == ["b"]
    assert layer(chain, "b").output.dtype is F32


def test_layer_rules(chain):
    apply(chain, "fp16", None, layers="*=fp32,a=fp16")
    assert layer(chain, "a").output.dtype is F16
    assert layer(chain, "b").output.dtype is F32
    check_network(chain)
    for text, message in (
        ("nothing*=fp32", "no layer matches 'nothing"),
        ("a", "'a' is not PATTERN=PRECISION"),
        ("a=fp8", "precision 'fp8' for 'a' is unknown"),
    ):
        with pytest.raises(BuilderError, match=message):
            apply(chain, "fp16", None, layers=text)


def test_a_quantised_network_reads_its_input_without_a_detour(chain):
    ranges = {name: 4.0 for t in chain.tensors() for name in chain.names_of(t)}
    applied = apply_precision(chain, "int8", device_kind="cuda", ranges=ranges)
    assert (applied.num_int8_layers, applied.storage) == (3, "int8")
    first = chain.layers[0]
    assert (first.kind, first.inputs[0], first.output.dtype) == (
        "pointwise", chain.inputs[0], DataType.INT8,
    )  # fmt: skip
    stored = {t.dtype for y in chain.layers for t in y.outputs}
    assert stored == {DataType.INT8, F16, F32}  # signed on GPUs; the output is cast
