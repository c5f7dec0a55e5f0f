"""The passes in order: network as imported -> fused network."""

from __future__ import annotations

from collections.abc import Callable

from builder_host.network.editing import check_network
from builder_host.network.network import Network

Pass = Callable[[Network], int]
Observer = Callable[[int, str, Network], None]

PASSES: tuple[tuple[str, Pass], ...] = ()


def run_passes(network: Network, observer: Observer | None = None) -> dict[str, int]:
    """Run all passes on a network in place.

    Args:
        network: is changed.
        observer: called with index, name and network: first (0, "imported", network), then after
            each pass.

    Returns:
        Number of changes by each pass, `NN-name` as key.

    Raises:
        NetworkError: a pass left a network that breaks the rules.
    """
    if observer is not None:
        observer(0, "imported", network)
    counts: dict[str, int] = {}
    for index, (name, run) in enumerate(PASSES, start=1):
        counts[f"{index:02d}-{name}"] = run(network)
        check_network(network)
        if observer is not None:
            observer(index, name, network)
    return counts
