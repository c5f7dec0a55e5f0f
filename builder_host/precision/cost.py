"""INT8 where it pays: layers at the border to float whose conversions cost more than they save."""

from __future__ import annotations

from collections.abc import Callable

from builder_host.network.copying import copy_network
from builder_host.network.network import Layer, Network
from builder_host.network.rules import EIGHT_BITS
from builder_host.passes import quantise

Rules = tuple[tuple[str, str], ...]

MAX_TRIES = 32  # layers tried; each lays the network out once


def unprofitable_layers(
    network: Network,
    apply: Callable[[Network, Rules], object],
    cost_us: Callable[[Network], float],
    *,
    precision: str = "fp32",
) -> Rules:
    """Rules that take out of INT8 what the cost model says is faster in float.

    Only layers that read or write real numbers are tried, one after the other in the network's
    order, until none is left: inside an integer network a layer in float never pays.

    Args:
        network: fused, in float32; it is left as it is.
        apply: gives a network its precisions, with further layer rules.
        cost_us: predicted time of a network whose precisions are final; may change it.
        precision: of the layers taken out: the float that the target computes fastest.
    """
    rules: Rules = ()
    tried: set[str] = set()
    best, candidates = _costed(network, apply, cost_us, rules)
    while len(tried) < MAX_TRIES:
        name = next((n for n in candidates if n not in tried), None)
        if name is None:
            break
        tried.add(name)
        longer = (*rules, (literal_pattern(name), precision))
        cost, borders = _costed(network, apply, cost_us, longer)
        if cost < best:
            rules, best, candidates = longer, cost, borders
    return rules


def literal_pattern(name: str) -> str:
    """A pattern that matches exactly this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _costed(
    network: Network,
    apply: Callable[[Network, Rules], object],
    cost_us: Callable[[Network], float],
    rules: Rules,
) -> tuple[float, list[str]]:
    trial = copy_network(network)
    apply(trial, rules)
    borders = [y.name for y in trial.layers if _is_border(y)]
    return cost_us(trial), borders


def _is_border(layer: Layer) -> bool:
    if layer.kind not in quantise.PRODUCTS or layer.inputs[0].dtype not in EIGHT_BITS:
        return False
    source = layer.inputs[0].producer
    is_first = source is not None and source.kind == "pointwise" and source.inputs[0].dtype.is_float
    return is_first or layer.output.dtype.is_float
