"""fuse_pooling: when a convolution and its pooling become one layer, and when they may not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from builder_host.expressions import (
    Binary,
    Const,
    Expr,
    Input,
    Select,
    Unary,
    clip,
    evaluate,
    leaky_relu,
    relu,
)
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.network.editing import check_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network, Tensor
from builder_host.network.padding_mode import PaddingMode
from builder_host.passes import fuse_pooling, layout_assignment
from builder_host.passes.monotone import is_nondecreasing
from builder_host.passes.pipeline import run_passes
from builder_host.registry import kernel_families
from builder_host.targets.target import CpuTarget

TARGET = CpuTarget("x86_64", "avx512", (), 2, 32 << 10, 1 << 20, 32 << 20, 80.0, 15.0)
X0 = Input(0)


def small_network(
    pooling: dict[str, Any] | None = None, activation: str = "relu", size: int = 16
) -> Network:
    """Image -> convolution -> activation -> 2x2 maximum -> convolution."""
    rng = np.random.default_rng(3)
    network = Network("small")
    y = network.add_input("x", (1, 16, size, size))
    y = convolved(network, y, 32, "conv1", bias=rng.standard_normal(32).astype(np.float32))
    options: dict[str, Any] = {"alpha": 0.1} if activation == "leaky_relu" else {}
    y = network.add_activation(y, activation, name="act1", **options).output
    window = {"mode": "max", "window": 2, "strides": 2, **(pooling or {})}
    y = network.add_pooling(y, **window, name="pool1").output
    network.mark_output(convolved(network, y, 16, "conv2"))
    return network


def convolved(
    network: Network, x: Tensor, maps: int, name: str, bias: np.ndarray[Any, Any] | None = None
) -> Tensor:
    """3x3 with random weights, as large as its input."""
    weights = np.random.default_rng(maps).standard_normal((maps, x.shape[1], 3, 3))
    return network.add_convolution(
        x, maps, 3, weights.astype(np.float32), bias, pads=1, name=name
    ).output


class Priced(FamilyChoice):
    """Estimates as told by kind, in microseconds, 0 otherwise."""

    def __init__(self, **prices: float) -> None:
        super().__init__(kernel_families("cpu"), TARGET)
        self.prices = prices

    def cost_us(self, problem: Problem) -> float:
        return self.prices.get(problem.kind, 0.0)


def fuse(
    network: Network, choice: FamilyChoice | None = None, timed_us: dict[str, float] | None = None
) -> int:
    """Passes, layouts, then the pass under test; the number of pairs that it fused."""
    real = FamilyChoice(kernel_families("cpu"), TARGET)
    run_passes(network)
    formats = layout_assignment.run(network, real, 1)
    fuse_pooling.run(network, formats, fuse_pooling.Prices(choice or real, timed_us or {}), 1)
    check_network(network)
    computed = {t for layer in network.layers for t in layer.outputs}
    assert computed | set(network.inputs) == set(formats)
    return kinds(network).count("pooled_convolution")


def kinds(network: Network) -> list[str]:
    """Kinds in order, without the changes of format at the edges."""
    return [layer.kind for layer in network.layers if layer.kind != "reformat"]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("size", [16, 17])
def test_pairs_become_one_layer(activation: str, size: int) -> None:
    network = small_network(activation=activation, size=size)
    x = np.random.default_rng(5).standard_normal((1, 16, size, size))
    before = evaluate_network(network, {"x": x})
    assert fuse(network) == 1
    assert kinds(network) == ["pooled_convolution", "convolution"]
    (fused,) = (layer for layer in network.layers if layer.kind == "pooled_convolution")
    assert fused.name == "conv1 + pool1"
    assert fused.output.shape == (1, 32, size // 2, size // 2)
    after = evaluate_network(network, {"x": x})
    (name,) = before
    np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "pooling",
    [
        {"mode": "average"},
        {"window": (3, 3)},
        {"strides": (1, 1)},
        {"pads": (1, 1)},
    ],
    ids=str,
)
def test_other_poolings_stay(pooling: dict[str, Any]) -> None:
    network = small_network(pooling)
    assert fuse(network) == 0
    assert "pooling" in kinds(network)


def test_windows_over_the_edge_stay() -> None:
    network = small_network({"padding_mode": PaddingMode.EXPLICIT_ROUND_UP}, size=17)
    assert fuse(network) == 0


def test_activations_that_change_the_order_stay() -> None:
    for activation in ("swish", "hard_swish"):
        assert fuse(small_network(activation=activation)) == 0


def test_results_that_are_read_elsewhere_stay() -> None:
    for also in ("output", "reader"):
        network = small_network()
        pool = next(layer for layer in network.layers if layer.kind == "pooling")
        between = pool.inputs[0]
        if also == "output":
            network.mark_output(between)
        else:
            network.mark_output(network.add_pooling(between, "average", 2, strides=2).output)
        assert fuse(network) == 0


def test_the_epilogue_of_the_pooling_is_kept() -> None:
    network = Network("floored")
    y = convolved(network, network.add_input("x", (1, 16, 8, 8)), 16, "conv")
    y = network.add_pooling(y, "max", 2, strides=2, name="pool").output
    floors = np.random.default_rng(3).standard_normal((16, 1, 1)).astype(np.float32)
    y = network.add_elementwise(y, floors, "max", name="floor").output
    network.mark_output(convolved(network, y, 16, "last"))
    values = np.random.default_rng(4).standard_normal((1, 16, 8, 8))
    before = evaluate_network(network, {"x": values})
    assert fuse(network) == 1
    assert kinds(network) == ["pooled_convolution", "convolution"]
    (name,) = before
    found = evaluate_network(network, {"x": values})[name]
    np.testing.assert_allclose(found, before[name], rtol=0, atol=1e-9)


def test_a_slower_kernel_is_taken_for_the_peak_alone() -> None:
    """Apart 20 us; 2 % more is always fine, beyond that the network may lose 2 % in all."""
    apart = {"convolution": 10.0, "pooling": 10.0}
    assert fuse(small_network(), Priced(**apart, pooled_convolution=20.3)) == 1
    # Three kernels take 30 us: 0.6 us may be spent on the peak, which the pair holds.
    assert fuse(small_network(), Priced(**apart, pooled_convolution=20.5)) == 1
    assert fuse(small_network(), Priced(**apart, pooled_convolution=20.7)) == 0


def test_timings_overrule_estimates_when_all_three_are_known() -> None:
    network = small_network()
    run_passes(network)
    real = FamilyChoice(kernel_families("cpu"), TARGET)
    formats = layout_assignment.run(network, real, 1)
    contested = fuse_pooling.run(network, formats, fuse_pooling.Prices(real, {}), 1)
    assert [problem.kind for problem in contested] == [
        "pooled_convolution",
        "convolution",
        "pooling",
    ]
    assert kinds(network).count("pooled_convolution") == 1
    slow = dict(zip((problem.text() for problem in contested), (30.0, 15.0, 5.0), strict=True))
    assert fuse(small_network(), timed_us=slow) == 0
    del slow[contested[2].text()]  # the pooling was not timed: estimates decide
    assert fuse(small_network(), timed_us=slow) == 1


def test_a_slower_kernel_elsewhere_stays_out() -> None:
    """Ahead of the pair lie larger tensors: the peak is there."""
    network = Network("wide")
    y = convolved(network, network.add_input("x", (1, 16, 32, 32)), 64, "wide")
    y = convolved(network, convolved(network, y, 64, "wide2"), 16, "conv")
    network.mark_output(network.add_pooling(y, "max", 2, strides=2, name="pool").output)
    choice = Priced(convolution=10.0, pooling=10.0, pooled_convolution=20.5)
    assert fuse(network, choice) == 0


MONOTONE: list[Expr] = [
    X0,
    relu(Binary("add", X0, Input(1))),
    clip(Binary("sub", X0, Input(1)), 0.0, 6.0),
    leaky_relu(Binary("add", X0, Input(1)), Const(0.1)),
    Select(Binary("lt", X0, Const(0.0)), Const(0.0), X0),
    Binary("mul", Const(0.5), Unary("round", X0)),
    Binary("div", X0, Const(3.0)),
    Binary("min", Const(2.0), X0),
]
OTHERS: list[Expr] = [
    Binary("mul", X0, Input(1)),
    Binary("mul", X0, Const(-1.0)),
    Binary("mul", X0, Const(float("nan"))),
    Binary("mul", X0, X0),
    Binary("sub", Input(1), X0),
    Binary("div", Const(1.0), X0),
    Unary("abs", X0),
    Unary("neg", X0),
    leaky_relu(X0, Const(-0.1)),
    leaky_relu(X0, Input(1)),
    Select(Binary("ge", X0, Const(1.0)), X0, Binary("mul", X0, Const(2.0))),
    Select(Binary("ge", X0, Const(0.0)), Const(-1.0), X0),
]


@pytest.mark.parametrize("expr", MONOTONE, ids=str)
def test_expressions_that_keep_the_order(expr: Expr) -> None:
    assert is_nondecreasing(expr)
    values = np.sort(np.random.default_rng(1).standard_normal(1000).astype(np.float32) * 3)
    found = evaluate(expr, [values, np.asarray(0.3, np.float32)])
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("expr", OTHERS, ids=str)
def test_expressions_that_may_not(expr: Expr) -> None:
    assert not is_nondecreasing(expr)
