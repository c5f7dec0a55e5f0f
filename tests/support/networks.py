"""Small networks for tests, and the check that a rewrite keeps what a network computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.editing import check_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network, Tensor

Array = npt.NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    """Float32 normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_inputs(network: Network, seed: int = 1) -> dict[str, Array]:
    """Normal values for float inputs, 0..9 for others."""
    rng = np.random.default_rng(seed)
    return {
        t.name: rng.standard_normal(t.shape)
        if t.dtype.is_float
        else rng.integers(0, 10, t.shape).astype(np.int64)
        for t in network.inputs
    }


def convolution(
    network: Network, x: Tensor, maps: int, window: int = 3, seed: int = 0, **options: Any
) -> Tensor:
    """A convolution with random weights and bias, padded to keep its extent."""
    spatial = x.type.rank - 2
    groups = options.get("groups", 1)
    options.setdefault("pads", window // 2)
    weights = random(maps, x.shape[1] // groups, *(window,) * spatial, seed=seed)
    layer = network.add_convolution(
        x, maps, window, weights, random(maps, seed=seed + 1), **options
    )
    return layer.output


def kinds(network: Network) -> list[str]:
    """Layer kinds in order."""
    return [layer.kind for layer in network.layers]


def assert_kept(
    network: Network,
    run: Callable[[Network], int],
    changes: int | None = None,
    tolerance: float = 1e-12,
) -> None:
    """Run a pass; the outputs keep names, types and values (relative to the largest element).

    A tolerance over float64 rounding is stated where new constants are rounded to float32.
    """
    inputs = random_inputs(network)
    before = evaluate_network(network, inputs)
    types = {t.name: t.type for t in network.outputs}
    done = run(network)
    check_network(network)
    if changes is not None:
        assert done == changes
    after = evaluate_network(network, inputs)
    assert {t.name: t.type for t in network.outputs} == types
    assert set(after) == set(before)
    for name, value in before.items():
        largest = float(np.max(np.abs(value), initial=0.0)) or 1.0
        np.testing.assert_allclose(after[name], value, rtol=0, atol=tolerance * largest)
