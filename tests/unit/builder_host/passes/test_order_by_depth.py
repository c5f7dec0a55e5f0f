"""Layers in the order of their depth, unless more memory would be needed."""

from __future__ import annotations

from builder_host.network.editing import check_network
from builder_host.network.network import Network, Tensor
from builder_host.passes import order_by_depth
from planformat.datatypes import DataType


def start(*shape: int) -> tuple[Network, Tensor]:
    network = Network("order")
    return network, network.add_input("x", shape, DataType.FLOAT32)


def names(network: Network) -> list[str]:
    return [layer.name for layer in network.layers]


def test_branches_written_one_after_the_other_become_neighbours() -> None:
    network, x = start(1, 8, 4, 4)
    stem = network.add_unary(x, "exp", name="stem").output
    a2 = network.add_unary(
        network.add_unary(stem, "exp", name="a1").output, "exp", name="a2"
    ).output
    b2 = network.add_unary(
        network.add_unary(stem, "exp", name="b1").output, "exp", name="b2"
    ).output
    network.mark_output(network.add_concatenation([a2, b2], name="join").output)
    assert order_by_depth.run(network) == 2
    assert names(network) == ["stem", "a1", "b1", "a2", "b2", "join"]
    check_network(network)
    assert order_by_depth.run(network) == 0


def test_views_take_no_step_of_their_own() -> None:
    """Behind a slice a layer is as deep as one that reads the whole."""
    network, x = start(1, 8, 4, 4)
    part = network.add_slice(x, (0, 0, 0, 0), (1, 4, 4, 4), name="slice").output
    first = network.add_unary(part, "exp", name="first").output
    deep = network.add_unary(first, "exp", name="deep").output
    second = network.add_unary(x, "exp", name="second").output
    network.mark_output(network.add_concatenation([deep, second], name="join").output)
    order_by_depth.run(network)
    assert names(network) == ["slice", "first", "second", "deep", "join"]


def test_order_stays_where_more_would_be_alive_at_once() -> None:
    """Each branch is wide inside and narrow at its end: side by side both are wide at once."""
    network, x = start(1, 1, 4, 4)
    ends = []
    for branch in "abc":
        wide = network.add_concatenation([x] * 64, name=f"{branch} wide").output
        risen = network.add_unary(wide, "exp", name=f"{branch} exp").output
        ends.append(network.add_reduce(risen, "sum", (1,), name=f"{branch} sum").output)
    network.mark_output(network.add_concatenation(ends, name="join").output)
    before = names(network)
    assert order_by_depth.run(network) == 0
    assert names(network) == before
