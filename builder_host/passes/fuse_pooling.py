"""convolution | epilogue -> maximum over windows becomes one kernel: the large map never exists.

Runs after layout assignment, where the families can say what each side costs. Neither the rounding
to the stored type nor the epilogue changes which value is the largest, so the maximum is taken over
the kernel's float sums, and the epilogue is applied to a quarter of the elements (2x2 windows).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder_host.expressions import Expr, Input, substitute
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.lowering.problems import Formats, layer_problem
from builder_host.network.layers.pooled_convolution import (
    PooledConvolutionParams,
    windows_are_whole,
)
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.passes.channels import is_per_channel
from builder_host.passes.monotone import is_nondecreasing
from builder_host.passes.order_by_depth import peak_bytes
from planformat.datatypes import TensorFormat

# Estimates err by more than this; a fused pair also saves a launch and an arena's peak.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class _Pair:
    convolution: Layer
    pooling: Layer
    fused: Layer
    problems: tuple[Problem, ...]  # fused, convolution, pooling
    apart_us: float
    fused_us: float


class Prices:
    """Microseconds of problems: as measured where they were, else the best family's estimate."""

    def __init__(self, choice: FamilyChoice, timed_us: Mapping[str, float]) -> None:
        """Timings by `Problem.text()`."""
        self.choice = choice
        self.timed_us = timed_us

    def of(self, problem: Problem) -> float:
        """Of one problem."""
        timed_us = self.timed_us.get(problem.text())
        return self.choice.cost_us(problem) if timed_us is None else timed_us

    def comparable(self, problems: Sequence[Problem]) -> list[float]:
        """Of each problem: all as measured, or all estimates."""
        if all(problem.text() in self.timed_us for problem in problems):
            return [self.timed_us[problem.text()] for problem in problems]
        return [self.choice.cost_us(problem) for problem in problems]


def run(
    network: Network, formats: dict[Tensor, TensorFormat], prices: Prices, num_workers: int
) -> tuple[Problem, ...]:
    """Fuse what takes, or is expected to take, at most 2 % longer than the two kernels.

    A pair that takes longer is fused only where that lowers the peak of the activations, and as
    long as all such pairs together add no more than 2 % to the network.

    A pair qualifies when the pooling alone reads the convolution's result, which is no output;
    windows lie within it; the convolution's epilogue reads nothing but constants per channel and
    keeps the order of values; the pooling's epilogue reads such constants alone; and a family
    computes the fused layer in the formats that both have.

    Args:
        network: with layouts assigned.
        formats: of every computed tensor; removed tensors are taken out.
        prices: tell what can be computed and what it costs.
        num_workers: as for `layer_problem`.

    Returns:
        The problems of all pairs that qualify, fused and apart, whatever was chosen.
    """
    found = [_pair(network, layer, formats, prices, num_workers) for layer in network.layers]
    pairs = [pair for pair in found if pair is not None]
    contested = tuple(problem for pair in pairs for problem in pair.problems)
    slower: list[_Pair] = []
    for pair in pairs:
        if pair.fused_us <= (1.0 + TOLERANCE) * pair.apart_us:
            _replace(network, pair, formats)
        else:
            slower.append(pair)
    if not slower:
        return contested
    total_us = sum(prices.of(_problem(y, formats, num_workers)) for y in network.layers)
    slack_us = TOLERANCE * total_us
    # The largest first: it alone can be the peak.
    for pair in sorted(slower, key=lambda p: -p.convolution.output.type.num_elems):
        layers = _without(network.layers, pair)
        added_us = pair.fused_us - pair.apart_us
        if added_us <= slack_us and peak_bytes(network, layers) < peak_bytes(
            network, network.layers
        ):
            _replace(network, pair, formats)
            slack_us -= added_us
    return contested


def fused_layer(network: Network, layer: Layer, pooling: Layer) -> Layer | None:
    """The layer that computes both, or None where their order may not be changed.

    It is not part of the network; its output is the pooling's output tensor.
    """
    between, result = layer.output, pooling.output
    if pooling.kind != "pooling" or pooling.params.mode != "max" or layer.kind != "convolution":
        return None
    if between in network.outputs or network.consumers().get(between, []) != [pooling]:
        return None
    # 8-bit sums go through a scale per channel, in kernels that do not pool.
    if not (layer.inputs[0].dtype.is_float and between.dtype.is_float):
        return None
    if result.dtype is not between.dtype:
        return None
    if not windows_are_whole(pooling.params, between.shape[2:]):
        return None
    operands = [*layer.operands, *pooling.operands]
    if not all(t.is_constant and is_per_channel(t.shape, result.shape, 1) for t in operands):
        return None
    inner = layer.epilogue.expr if layer.epilogue else Input(0)
    if not is_nondecreasing(inner):
        return None
    epilogue = None
    if layer.epilogue or pooling.epilogue:
        epilogue = Epilogue(_composed(inner, layer, pooling), len(operands))
    return Layer(
        "pooled_convolution",
        f"{layer.name} + {pooling.name}",
        PooledConvolutionParams(layer.params, pooling.params),
        [*layer.own_inputs, *operands],
        [result],
        epilogue,
        " + ".join(dict.fromkeys(y.origin for y in (layer, pooling) if y.origin)),
    )


def _composed(inner: Expr, layer: Layer, pooling: Layer) -> Expr:
    if pooling.epilogue is None:
        return inner
    first = 1 + len(layer.operands)
    places: list[Expr] = [Input(first + number) for number in range(len(pooling.operands))]
    return substitute(pooling.epilogue.expr, [inner, *places])


def _pair(
    network: Network,
    pooling: Layer,
    formats: Formats,
    prices: Prices,
    num_workers: int,
) -> _Pair | None:
    layer = pooling.inputs[0].producer if pooling.kind == "pooling" else None
    fused = fused_layer(network, layer, pooling) if layer is not None else None
    if layer is None or fused is None:
        return None
    problems = tuple(_problem(y, formats, num_workers) for y in (fused, layer, pooling))
    if not prices.choice.can_compute(problems[0]):
        return None
    fused_us, *apart_us = prices.comparable(problems)
    return _Pair(layer, pooling, fused, problems, sum(apart_us), fused_us)


def _without(layers: list[Layer], pair: _Pair) -> list[Layer]:
    """The layers with the fused one in the pooling's place."""
    return [
        pair.fused if layer is pair.pooling else layer
        for layer in layers
        if layer is not pair.convolution
    ]


def _replace(network: Network, pair: _Pair, formats: dict[Tensor, TensorFormat]) -> None:
    fused = pair.fused
    fused.name = network.unique_name(fused.name)
    network.layers[:] = _without(network.layers, pair)
    fused.outputs[0].producer = fused
    between = pair.convolution.output
    del formats[between]
    for name in [name for name, holder in network.aliases.items() if holder is between]:
        del network.aliases[name]  # the values that they named are computed nowhere


def _problem(layer: Layer, formats: Formats, num_workers: int) -> Problem:
    def layout_of(tensor: Tensor) -> Layout:
        return dense_layout(tensor.type, formats[tensor])

    return layer_problem(layer, layout_of, num_workers)
