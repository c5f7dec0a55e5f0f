"""GPU plans: casts at the bindings vanish, the second branch of a fork starts early."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_toolkits import need_toolkit

import builder_host as bh
from builder_host.builder import BuiltPlan
from builder_host.network.network import Network, Tensor
from planformat.datatypes import DataType


def conv(network: Network, x: Tensor, maps: int, size: int, name: str, **options: int) -> Tensor:
    """A convolution with random weights."""
    rng = np.random.default_rng(maps + size)
    weights = rng.standard_normal((maps, x.shape[1], size, size)).astype(np.float32) * 0.1
    return network.add_convolution(x, maps, size, weights, name=name, **options).output


def inception(precision: str) -> BuiltPlan:
    """A first layer, then branches `b1` -> `b2` and `a`, one after the other, and a join."""
    network = Network("fork")
    x = network.add_input("x", (1, 3, 16, 16), DataType.FLOAT32)
    stem = conv(network, x, 32, 3, "stem", strides=2, pads=1)
    b1 = conv(network, stem, 48, 1, "b1")
    b2 = conv(network, b1, 32, 3, "b2", pads=1)
    a = conv(network, stem, 32, 3, "a", pads=1)
    join = network.add_concatenation([a, b2]).output
    flat = network.add_reshape(conv(network, join, 10, 8, "last"), (1, 10)).output
    network.mark_output(network.add_softmax(flat, name="prob").output)
    need_toolkit()
    config = bh.BuilderConfig(target="h200@r560", precision=precision, measure="none")
    return bh.build(network, config)


@pytest.fixture(scope="module")
def half() -> BuiltPlan:
    return inception("fp16")


def steps_of(built: BuiltPlan) -> dict[str, tuple[str, str]]:
    """Kernel symbol and tactic by the name of the step, in order."""
    variant = built.plan.variants[0]
    return {
        step.name: (variant.kernels[step.kernel].symbol, step.tactic)
        for step in variant.profiles[0].steps
    }


def test_steps_read_and_write_float32_bindings_themselves(half: BuiltPlan) -> None:
    names = list(steps_of(half))
    assert not any("cast" in name for name in names)
    assert names[0] == "stem"
    assert steps_of(half)["stem"][1].startswith("cuda_conv_first")
    assert {b.dtype for b in half.plan.bindings} == {DataType.FLOAT32}


def test_branches_of_a_fork_are_neighbours(half: BuiltPlan) -> None:
    names = [name.split(" ")[0] for name in steps_of(half)]
    assert names[:4] == ["stem", "b1", "a", "b2"]


def test_what_needs_no_neighbour_starts_early(half: BuiltPlan) -> None:
    early = {name.split(" ")[0]: "early" in symbol for name, (symbol, _) in steps_of(half).items()}
    assert early["a"], "its input was complete before b1 began"
    assert not early["stem"]
    assert not early["b1"], "it reads what the step ahead of it writes"
    assert not early["b2"], "a did not wait before it let b2 start, so nothing vouches for b1"
    assert not early["last"]
