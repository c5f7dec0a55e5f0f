"""Edits keep names, order and types; evaluation and dump follow the network."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks import convolution, kinds, random, random_inputs

from builder_host.errors import NetworkError
from builder_host.expressions import Binary, Input
from builder_host.network.dump import describe
from builder_host.network.editing import (
    bypass_layer,
    can_replace,
    check_network,
    insert_before,
    move_before,
    remove_layer,
    replace_tensor,
    update_layer,
)
from builder_host.network.evaluate import evaluate_network
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.network import Epilogue, Network


@pytest.fixture
def chain():
    """Input x, relu, tanh, output out."""
    network = Network()
    x = network.add_input("x", (1, 2, 3, 3))
    a = network.add_activation(x, "relu", name="a")
    b = network.add_activation(a.output, "tanh", name="b")
    network.mark_output(b.output, "out")
    return network, x, a, b


def test_replacing_an_output_hands_its_name_over(chain):
    network, x, a, b = chain
    assert not can_replace(network, b.output, x)
    assert bypass_layer(network, b, a.output)
    assert (a.output.name, network.outputs) == ("out", [a.output])
    assert not bypass_layer(network, a, x)  # an output must be computed
    assert kinds(network) == ["activation"]
    check_network(network)


def test_tensors_of_other_types_do_not_replace(chain):
    network, x, a, _ = chain
    other = network.add_constant(random(2))
    with pytest.raises(NetworkError, match="1x2x3x3:f32"):
        replace_tensor(network, a.output, other)
    with pytest.raises(NetworkError, match="cannot be replaced"):
        replace_tensor(network, network.outputs[0], x)


def test_types_are_inferred_again_where_their_basis_changed(chain, monkeypatch):
    network, x, _, b = chain
    inferred = []
    infer = Network.inferred_types
    monkeypatch.setattr(
        Network, "inferred_types", lambda self, y: (inferred.append(y.name), infer(self, y))[1]
    )
    checked = {}
    check_network(network, checked)
    assert inferred == ["a", "b"]
    check_network(network, checked)
    assert inferred == ["a", "b"]
    b.params = ActivationParams("relu")
    check_network(network, checked)
    assert inferred == ["a", "b", "b"]
    x.type = network.add_input("other", (1, 2, 4, 4)).type  # what a broken pass would do
    with pytest.raises(NetworkError, match="'a': output types are out of date"):
        check_network(network, checked)


def test_layers_that_are_read_stay(chain):
    network, _, a, _ = chain
    with pytest.raises(NetworkError, match="'a' is read by b"):
        remove_layer(network, a)


def test_insert_move_and_update(chain):
    network, x, a, b = chain
    c = insert_before(network, b, "activation", ActivationParams("sigmoid"), [x], "a")
    assert c.name == "a.2"
    assert network.layers == [a, c, b]
    move_before(network, c, a)
    assert network.layers == [c, a, b]
    update_layer(network, b, inputs=[c.output])
    check_network(network)
    with pytest.raises(NetworkError, match="outputs would change from 1x2x3x3:f32 to 2:f32"):
        update_layer(network, b, inputs=[network.add_constant(random(2))])
    assert b.inputs == [c.output]


def test_check_finds_wrong_order(chain):
    network, _, _, _ = chain
    network.layers.reverse()
    with pytest.raises(NetworkError, match="reads 'a' before it is computed"):
        check_network(network)


def test_epilogue_operands_must_broadcast():
    network = Network()
    x = network.add_input("x", (1, 2, 3, 3))
    epilogue = Epilogue(Binary("add", Input(0), Input(1)), 1)
    wrong = network.add_constant(random(5, 1, 1), "bias")
    params = network.add_pooling(x, "max", 1).params
    with pytest.raises(NetworkError, match=r"epilogue operand 'bias' \(5, 1, 1\) does not"):
        network.add_layer("pooling", params, [x, wrong], epilogue=epilogue)
    bias = network.add_constant(random(2, 1, 1), "bias")
    layer = network.add_layer("pooling", params, [x, bias], epilogue=epilogue)
    network.mark_output(layer.output, "y")
    feeds = random_inputs(network)
    expected = feeds["x"] + bias.values.astype(np.float64)
    np.testing.assert_array_equal(evaluate_network(network, feeds)["y"], expected)


def test_evaluation_checks_its_inputs(chain):
    network, _, a, _ = chain
    with pytest.raises(NetworkError, match=r"missing \['x'\], not known \['z'\]"):
        evaluate_network(network, {"z": random(1)})
    with pytest.raises(NetworkError, match=r"shape \(3, 3\), the network takes \(1, 2, 3, 3\)"):
        evaluate_network(network, {"x": random(3, 3)})
    found = evaluate_network(network, random_inputs(network), keep=[a.output])
    assert set(found) == {"out", "a"}


def test_dump_has_a_line_per_layer(chain):
    network, x, _, b = chain
    convolution(network, x, 4)
    text = describe(network)
    assert text == describe(network)
    assert "input x 1x2x3x3:f32" in text
    assert "a 1x2x3x3:f32 = activation(x 1x2x3x3:f32) (function='relu'" in text
    assert "w" in text
    assert text.splitlines()[-1] == "output out 1x2x3x3:f32"
    assert b.name in text
