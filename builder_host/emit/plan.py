"""Tuned operations -> Plan: code, packed weights, arena offsets, steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from builder_host.emit.step_details import operation_details
from builder_host.emit.tuned import TunedOperation, TunedProfile
from builder_host.emit.weights_region import WeightsRegion
from builder_host.kernels.family import GridLaunch, Launch
from builder_host.lowering.memory_plan import ArenaPlan, Lifetime, plan_memory
from builder_host.lowering.placement import View
from builder_host.network.network import Tensor
from builder_host.targets.backend import Backend, LinkedCode
from planformat.details import (
    ArenaDetails,
    OperationDetails,
    PlanDetails,
    ProfileDetails,
    encode_details,
)
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Plan,
    Profile,
    Step,
    Variant,
)
from planformat.recipe import BuildRecipe


def emit_plan(
    profiles: Sequence[TunedProfile],
    *,
    backend: Backend,
    fingerprint: DeviceFingerprint,
    provenance: Mapping[str, str],
    recipe: BuildRecipe,
    keeps_equal_apart: bool = False,
) -> Plan:
    """Put a plan together.

    Args:
        profiles: at least one; their bindings differ in shapes only.
        backend: compiles and links the code objects.
        fingerprint: of the device that the plan is for.
        provenance: text facts to store.
        recipe: what the networks were built from and how.
        keeps_equal_apart: each constant of the network has a place of its own.

    Raises:
        CompileError: code that was tuned before does not compile or link now.
    """
    network = profiles[0].draft.network
    region = WeightsRegion()
    keys = [
        [
            [
                None if a is None else region.add(a, _owner(item, i) if keeps_equal_apart else "")
                for i, a in enumerate(packed_constants(item, backend.target))
            ]
            for item in profile.operations
        ]
        for profile in profiles
    ]
    weights, chunk_lengths, offsets = region.finish()
    code = backend.link([item.program for profile in profiles for item in profile.operations])
    emitted = [
        emit_profile(profile, own_keys, offsets, code)
        for profile, own_keys in zip(profiles, keys, strict=True)
    ]
    variant = Variant(
        fingerprint=fingerprint,
        code_objects=code.code_objects,
        kernels=code.kernels,
        profiles=tuple(profile for profile, _ in emitted),
    )
    return Plan(
        name=network.name,
        bindings=tuple(
            Binding(tensor.name, index < len(network.inputs), tensor.dtype)
            for index, tensor in enumerate([*network.inputs, *network.outputs])
        ),
        variants=(variant,),
        weights=weights.data,
        chunk_lengths=chunk_lengths,
        provenance=dict(sorted(provenance.items())),
        details=encode_details(PlanDetails((tuple(details for _, details in emitted),), recipe)),
    )


def emit_profile(
    profile: TunedProfile,
    keys: Sequence[Sequence[bytes | None]],
    offsets: Mapping[bytes, int],
    code: LinkedCode,
) -> tuple[Profile, ProfileDetails]:
    """Steps of a profile, and what the plan tells about them.

    Args:
        profile: with its tactics.
        keys: for each operation and input the key of a packed constant, or None.
        offsets: where in the weights the constant of a key begins, in bytes.
        code: where kernels are found.
    """
    tuned = profile.operations
    binding_index = _binding_index(profile)
    lifetimes = arena_lifetimes(profile)
    arena = plan_memory(lifetimes)
    steps: list[Step] = []
    operations: list[OperationDetails] = []
    names: set[str] = set()
    for index, item in enumerate(tuned):
        arguments = _arguments(item, index, keys[index], offsets, arena, binding_index)
        for number, launch in enumerate(item.program.launches, start=1):
            name = item.operation.name
            if len(item.program.launches) > 1:
                name = f"{name} [{number}/{len(item.program.launches)}]"
            steps.append(_step(_unique(name, names), launch, item, code, arguments))
        own_steps = tuple(range(len(steps) - len(item.program.launches), len(steps)))
        operations.append(operation_details(item, own_steps, profile.draft))
    made = Profile(
        name=profile.draft.name,
        shapes=tuple(tensor.shape for tensor in binding_index),
        steps=tuple(steps),
        arena_bytes=arena.arena_bytes,
        arena_lower_bound_bytes=arena.lower_bound_bytes,
        num_workers=max((item.operation.problem.num_workers for item in tuned), default=1),
    )
    buffers = tuple(
        ArenaDetails(
            life.name, arena.offsets[life.name], life.size_bytes, life.first_step, life.last_step
        )
        for life in lifetimes
    )
    return made, ProfileDetails(made.name, tuple(operations), buffers)


def _step(
    name: str,
    launch: Launch | GridLaunch,
    item: TunedOperation,
    code: LinkedCode,
    arguments: tuple[Argument, ...],
) -> Step:
    candidate, timing = item.selection.candidate, item.selection.timing
    share = len(item.program.launches)
    median_us = timing.median_us if timing is not None else None
    common = Step(
        name=name,
        kernel=code.kernel_index(launch.symbol),
        grid=(1, 1, 1),
        arguments=arguments,
        tactic=candidate.tactic.text,
        measured_us=None if median_us is None else median_us / share,
        predicted_us=candidate.estimate_us / share,
    )
    if isinstance(launch, Launch):
        return replace(
            common,
            grid=(launch.num_units, 1, 1),
            scratch_bytes_per_worker=launch.scratch_bytes_per_worker,
        )
    return replace(
        common,
        grid=launch.grid,
        block=launch.block,
        cluster=launch.cluster,
        shared_memory_bytes=launch.shared_memory_bytes,
        is_dependent_launch=launch.is_dependent,
    )


def _unique(name: str, taken: set[str]) -> str:
    wanted, number = name, 2
    while name in taken:
        name, number = f"{wanted} ({number})", number + 1
    taken.add(name)
    return name


def _workspace_name(index: int) -> str:
    return f"workspace {index}"


def _binding_index(profile: TunedProfile) -> dict[Tensor, int]:
    network = profile.draft.network
    return {tensor: index for index, tensor in enumerate([*network.inputs, *network.outputs])}


def arena_lifetimes(profile: TunedProfile) -> list[Lifetime]:
    """Buffers of a profile's arena: workspaces and tensors that are no bindings."""
    placement, tuned, bindings = (
        profile.draft.placement,
        profile.operations,
        _binding_index(profile),
    )
    spans: dict[Tensor, tuple[int, int]] = {}
    found: list[Lifetime] = []
    for index, item in enumerate(tuned):
        for view in [*item.operation.inputs, *item.operation.outputs]:
            if view is None or view.root in bindings:
                continue
            first, _ = spans.get(view.root, (index, index))
            spans[view.root] = (first, index)
        if item.program.workspace_bytes:
            found.append(
                Lifetime(_workspace_name(index), index, index, item.program.workspace_bytes)
            )
    for root, (first, last) in spans.items():
        found.append(Lifetime(root.name, first, last, placement.buffer_bytes(root)))
    return found


def packed_constants(item: TunedOperation, target: Any) -> list[npt.NDArray[Any] | None]:
    """For each input of an operation the packed bytes of a constant, or None."""
    candidate = item.selection.candidate
    constants = [t.values if t is not None else None for t in item.operation.constants]
    return candidate.family.pack(candidate.problem, candidate.tactic, target, constants)


def _owner(item: TunedOperation, number: int) -> str:
    """The constant of the network that an input of an operation is packed from."""
    tensor = item.operation.constants[number]
    return tensor.name if tensor is not None else f"{item.operation.name}:{number}"


def _arguments(
    item: TunedOperation,
    index: int,
    keys: Sequence[bytes | None],
    offsets: Mapping[bytes, int],
    arena: ArenaPlan,
    bindings: Mapping[Tensor, int],
) -> tuple[Argument, ...]:
    def of_view(view: View) -> Argument:
        binding = bindings.get(view.root)
        if binding is not None:
            return Argument(ArgumentKind.BINDING, binding, view.offset_bytes)
        return Argument(ArgumentKind.ARENA, arena.offsets[view.root.name] + view.offset_bytes)

    arguments: list[Argument] = []
    for view, key in zip(item.operation.inputs, keys, strict=True):
        if view is not None:
            arguments.append(of_view(view))
        elif key is not None:
            arguments.append(Argument(ArgumentKind.WEIGHTS, offsets[key]))
        else:  # the family bakes this constant into its code
            arguments.append(Argument(ArgumentKind.IMMEDIATE, 0))
    arguments.extend(of_view(view) for view in item.operation.outputs)
    if item.program.workspace_bytes:
        arguments.append(Argument(ArgumentKind.ARENA, arena.offsets[_workspace_name(index)]))
    return tuple(arguments)
