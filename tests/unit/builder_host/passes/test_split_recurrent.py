"""Input projections of recurrent layers become one product."""

from __future__ import annotations

import numpy as np
import pytest

from builder_host.network.api_recurrent import RnnWeights
from builder_host.network.editing import check_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.layers.recurrent import RecurrentParams
from builder_host.network.network import Network
from builder_host.passes import split_recurrent
from builder_host.passes.pipeline import run_passes

RANDOM = np.random.default_rng(4)
STEPS, BATCH, FEATURES, HIDDEN = 3, 2, 4, 5


def uniform(*shape):
    return RANDOM.uniform(-0.7, 0.7, shape).astype(np.float32)


def stack(num_layers, *, has_bias=True):
    network = Network()
    x = network.add_input("x", (STEPS, BATCH, FEATURES))
    layers = [
        RnnWeights(
            uniform(2, 3 * HIDDEN, HIDDEN),
            uniform(2, 3 * HIDDEN, FEATURES if number == 0 else 2 * HIDDEN),
            uniform(2, 3 * HIDDEN) if has_bias else None,
            uniform(2, 3 * HIDDEN) if has_bias else None,
        )
        for number in range(num_layers)
    ]
    outputs = network.add_rnn(
        x, "gru", HIDDEN, layers, direction="bidirectional", batch_first=False
    )
    network.mark_output(outputs.output)
    network.mark_output(outputs.hidden)
    return network, {"x": uniform(STEPS, BATCH, FEATURES)}


def same_after(network, inputs, run):
    before = evaluate_network(network, inputs)
    changed = run(network)
    check_network(network)
    after = evaluate_network(network, inputs)
    for one, other in zip(before.values(), after.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    return changed


def test_both_directions_share_one_product_per_layer():
    network, inputs = stack(2)
    assert same_after(network, inputs, split_recurrent.run) == 2
    kinds = [layer.kind for layer in network.layers]
    assert kinds.count("matrix_multiply") == kinds.count("recurrent") == 2
    product = next(y for y in network.layers if y.kind == "matrix_multiply")
    assert product.output.shape == (STEPS * BATCH, 2 * 3 * HIDDEN)
    assert all(y.params.is_projected for y in network.layers if y.kind == "recurrent")
    assert split_recurrent.run(network) == 0


def test_a_bias_of_zeros_is_not_added():
    network, inputs = stack(1, has_bias=False)
    same_after(network, inputs, split_recurrent.run)
    assert "elementwise" not in [layer.kind for layer in network.layers]


def test_computed_weights_are_reshaped_by_the_network():
    network = Network()
    shapes = [
        ("x", (STEPS, BATCH, FEATURES)),
        ("weights", (1, 4 * HIDDEN, FEATURES)),
        ("recurrent", (1, 4 * HIDDEN, HIDDEN)),
        ("bias", (1, 4 * HIDDEN)),
    ]
    tensors = [network.add_input(name, shape) for name, shape in shapes]
    layer = network.add_layer("recurrent", RecurrentParams("lstm", HIDDEN), tensors)
    network.mark_output(layer.output)
    inputs = {name: uniform(*shape) for name, shape in shapes}
    assert same_after(network, inputs, split_recurrent.run) == 1


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_pipeline_leaves_products_with_fused_biases(num_layers):
    network, inputs = stack(num_layers)
    same_after(network, inputs, run_passes)
    kinds = [layer.kind for layer in network.layers if layer.kind not in ("reshape", "transpose")]
    assert [k for k in kinds if k != "concatenation"] == [
        "fully_connected",
        "recurrent",
    ] * num_layers
