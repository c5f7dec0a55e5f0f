"""One profile on its way to a plan: a network of fixed shapes -> fused, typed, laid out, placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.config import BuilderConfig
from builder_host.emit.remembered_reference import remembered_outputs
from builder_host.errors import BuilderError
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.kernels.remembered_ranks import RememberedRanks
from builder_host.lowering.placement import Operation, Placement
from builder_host.network.copying import copy_network
from builder_host.network.network import Network, Tensor
from builder_host.passes import absorb_casts, fuse_pooling, layout_assignment, order_by_depth
from builder_host.passes.pipeline import run_passes
from builder_host.precision.cost import Rules, unprofitable_layers
from builder_host.precision.rules import AppliedPrecision, apply_precision
from builder_host.targets.backend import KernelTarget
from builder_host.targets.cuda import CudaTarget
from builder_host.targets.target import CpuTarget
from builder_host.trace import TraceWriter


@dataclass(frozen=True, slots=True)
class Draft:
    """A profile ready for tuning.

    Attributes:
        name: of the profile.
        network: after all passes.
        reference: float64 outputs for the canary's inputs, of the network as imported, or as
            quantised here; None when the build is not checked.
        placement, operations: what runs, in order, on which views.
        precision: what the network is computed and stored in.
        contested: problems of layers that can run fused or apart, both ways; to be timed.
    """

    name: str
    network: Network
    reference: Mapping[str, npt.NDArray[Any]] | None
    placement: Placement
    operations: tuple[Operation, ...]
    precision: AppliedPrecision
    contested: tuple[Problem, ...]

    def scale_of(self, tensor: Tensor) -> float:
        """Real value of one step of a tensor quantised in this build, else 0."""
        quantisation = self.precision.quantisation
        return quantisation.scales.get(tensor.name, 0.0) if quantisation else 0.0

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants before packing."""
        return sum(t.values.nbytes for t in self.network.tensors() if t.values is not None)


def make_draft(
    name: str,
    network: Network,
    config: BuilderConfig,
    backend: KernelTarget,
    *,
    num_workers: int,
    trace: TraceWriter | None,
    first: Draft | None = None,
    store: ArtifactStore | None = None,
    timed_us: Mapping[str, float] | None = None,
) -> Draft:
    """Take a copy of a network through passes, layouts and placement.

    Args:
        name: of the profile.
        network: as imported, in the profile's shapes; it is left as it is.
        config: options of the build.
        backend: target and kernel families.
        num_workers: threads that share the work.
        trace: where the network is written after each pass.
        first: the plan's first profile, whose precisions this one repeats: the result of a sample
            must not depend on the batch that it is in.
        store: where the float64 reference is kept from build to build, or None.
        timed_us: microseconds by `Problem.text()`, as far as they were measured: they decide what
            is fused; estimates do where they are missing.

    Raises:
        BuilderError: the network has no outputs or breaks a rule of a pass.
    """
    network = copy_network(network)
    _check_bindings(network)
    reference = remembered_outputs(network, store) if config.is_checked else None
    run_passes(network, trace)
    ranks = None if store is None else _remembered_ranks(network, config, backend, store)
    choice = FamilyChoice(backend.families, backend.target, ranks)
    table = config.table()

    def apply(one: Network, rules: Rules) -> AppliedPrecision:
        return apply_precision(
            one,
            config.precision,
            device_kind=backend.target_kind,
            has_bf16=isinstance(backend.target, CpuTarget) and backend.target.has_bf16_dot,
            ranges=table.ranges if table is not None else None,
            largest=table.largest if table is not None else None,
            layer_rules=(*rules, *config.layer_precision),
            tensor_rules=config.tensor_precision,
        )

    def cost_us(one: Network) -> float:
        layouts = layout_assignment.run(one, choice, num_workers)
        if isinstance(backend.target, CudaTarget):
            absorb_casts.run(one, layouts, choice, num_workers)
        problems = [op.problem for op in Placement(one, layouts, choice, num_workers).operations()]
        return sum(choice.cost_us(problem) for problem in problems)

    rules: Rules = ()
    floats = "fp16" if backend.target_kind == "cuda" else "fp32"
    if first is not None:
        rules = tuple((pattern, floats) for pattern in first.precision.unprofitable)
    elif config.precision == "best" and table is not None:
        rules = unprofitable_layers(network, apply, cost_us, precision=floats)
    applied = replace(apply(network, rules), unprofitable=tuple(pattern for pattern, _ in rules))
    choice.tf32_layers = applied.tf32_layers
    if reference is not None and applied.num_int8_layers:
        reference = remembered_outputs(network, store)
    formats = layout_assignment.run(network, choice, num_workers)
    if isinstance(backend.target, CudaTarget):
        absorb_casts.run(network, formats, choice, num_workers)
    # Behind the casts, which look for convolutions; ahead of the order, which goes by the peak.
    prices = fuse_pooling.Prices(choice, timed_us or {})
    contested = fuse_pooling.run(network, formats, prices, num_workers)
    if isinstance(backend.target, CudaTarget):
        order_by_depth.run(network)
    if trace is not None:
        trace.layouts(network, formats)
    placement = Placement(network, formats, choice, num_workers)
    if ranks is not None:
        ranks.save()
    return Draft(
        name, network, reference, placement, tuple(placement.operations()), applied, contested
    )


def _remembered_ranks(
    network: Network, config: BuilderConfig, backend: KernelTarget, store: ArtifactStore
) -> RememberedRanks:
    layers = (" ".join([y.kind, *(str(t.type) for t in y.outputs)]) for y in network.layers)
    return RememberedRanks(store, backend.target, [config.precision, *layers])


def check_same_bindings(drafts: list[Draft]) -> None:
    """All profiles of a plan have the same bindings but for their shapes.

    Raises:
        BuilderError: names the first difference.
    """
    first = drafts[0]
    for draft in drafts[1:]:
        for role in ("inputs", "outputs"):
            wanted = [(t.name, t.dtype.text) for t in getattr(first.network, role)]
            found = [(t.name, t.dtype.text) for t in getattr(draft.network, role)]
            if wanted != found:
                raise BuilderError(
                    f"profile '{draft.name}' has {role} {found}, profile '{first.name}' has "
                    f"{wanted}; the profiles of a plan differ in shapes only"
                )


def _check_bindings(network: Network) -> None:
    if not network.outputs:
        raise BuilderError("the network has no output; mark one")
    for tensor in network.outputs:
        if tensor.producer is None and not tensor.is_constant and tensor not in network.inputs:
            raise BuilderError(f"output '{tensor.name}' is computed by no layer")
