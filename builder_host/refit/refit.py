"""Put a model's weights into a plan: stripped ones back, or others of the same architecture.

The importer, the passes and the packing of a build run again with the options and tactics that the
plan states; all but the weights, and what follows from them (the canary's outputs, the names of the
model's files), stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from builder_host.builder import Progress
from builder_host.config import BuilderConfig
from builder_host.emit.verification import (
    CANARY_SEED,
    ERROR_LIMITS,
    TOLERANCE_OF_PRECISION,
    TOLERANCE_OF_SAME_CODE,
    check_outputs,
    make_canary,
    with_canary,
)
from builder_host.errors import RefitError
from builder_host.lowering.draft import Draft, make_draft
from builder_host.measure.local import local_fingerprint, local_gpu, try_plan_here
from builder_host.network.network import Network
from builder_host.recipe import config_of
from builder_host.refit.fused import is_recorded, recorded_times
from builder_host.refit.recorded import recorded_operations
from builder_host.refit.region import packed_region
from builder_host.targets.backend import TargetWithoutTools
from planformat.container import SectionKind
from planformat.details import PlanDetails, encode_details, plan_details
from planformat.fingerprint import compare
from planformat.plan import Plan, Profile
from planformat.reader import read_container, read_plan
from planformat.recipe import BuildRecipe
from planformat.sections.chunks import encode_chunks, weights_hash
from planformat.stripped import filled_plan, is_stripped, read_stripped
from planformat.writer import plan_bytes


@dataclass(frozen=True, slots=True)
class RefittedPlan:
    """A plan with a model's weights.

    Attributes:
        data: content of the PLAN file.
        is_same: the weights are those that the plan had before: without a new signature `data` is
            that plan, byte for byte.
        lost_signature: the plan was signed, and other weights left it without a signature.
        accuracy: relative L2 error of each output against the float64 reference; empty when the
            plan did not run here, or need not.
    """

    data: bytes
    is_same: bool
    lost_signature: bool
    accuracy: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RefittablePlan:
    """A plan that was read and verified, and says how it was built. Made by `open_refittable`.

    Attributes:
        data: content of the PLAN file, stripped or not.
        source: its name for messages.
        plan: of one variant; without weights when it was stripped.
        details: what it tells of its operations.
        recipe: what it was built from.
        weights_sha256: hash of the chunks of the weights that it has, or had.
    """

    data: bytes | memoryview
    source: str
    plan: Plan
    details: PlanDetails
    recipe: BuildRecipe
    weights_sha256: bytes


def open_refittable(data: bytes | memoryview, *, source: str = "plan") -> RefittablePlan:
    """Read and verify a plan that weights shall be put into.

    Args:
        data: content of a PLAN file, stripped or not.
        source: the plan's name for messages.

    Raises:
        PlanError: the plan is damaged.
        RefitError: it cannot be refitted; says why.
    """
    if is_stripped(data, source=source):
        stripped = read_stripped(data, source=source)
        plan, digest = stripped.plan, weights_hash(stripped.chunk_hashes)
    else:
        plan = read_plan(data, source=source)
        entry = read_container(data, source=source).find(SectionKind.WEIGHTS)
        if entry is None:
            raise RefitError(f"plan {source}: has no weights that could be others")
        digest = entry.sha256  # of the chunks' hashes, which are those of the weights: just checked
    if len(plan.variants) != 1:
        raise RefitError(
            f"plan {source}: has {len(plan.variants)} variants; refit the plans that were merged"
        )
    details = plan_details(plan, source=source)
    rows = [o for p in details.variants[0] for o in p.operations] if details is not None else []
    if details is None or details.recipe is None or not all(o.source_sha256 for o in rows):
        raise RefitError(
            f"plan {source}: does not say how it was built (format before 1.2, or without details)"
            "; build it again"
        )
    return RefittablePlan(data, source, plan, details, details.recipe, digest)


def recipe_of_plan(data: bytes | memoryview, *, source: str = "plan") -> tuple[Plan, BuildRecipe]:
    """A plan, stripped or not, and what it was built from. Errors are those of `open_refittable`.

    To refit it afterwards, `open_refittable` saves reading it twice.
    """
    opened = open_refittable(data, source=source)
    return opened.plan, opened.recipe


def refit_plan(
    data: bytes | memoryview | RefittablePlan,
    networks: Network | Mapping[str, Network],
    *,
    source: str = "plan",
    signing_key: bytes | None = None,
    is_checked: bool = True,
    must_be_same: bool = False,
    progress: Progress | None = None,
) -> RefittedPlan:
    """Put a model's weights into a plan.

    Args:
        data: content of a PLAN file, stripped or not, or what `open_refittable` made of it.
        networks: the model as imported, in the shapes of the plan's only profile; or one network
            per profile, by its name.
        source: the plan's name for messages, where `data` is bytes.
        signing_key: 32 bytes to sign the result with. None: the old signature stays where the
            weights are the old ones, else the result has none.
        is_checked: compare other weights' outputs with the float64 reference.
        must_be_same: other weights than those that the plan had are an error.
        progress: called with a phase's name, items done and items in all.

    Raises:
        PlanError: the plan is damaged.
        RefitError: the model does not fit; names the layer and what differs.
    """
    report = progress or _no_progress
    opened = data if isinstance(data, RefittablePlan) else open_refittable(data, source=source)
    plan, details, recipe = opened.plan, opened.details, opened.recipe
    variant, profiles = plan.variants[0], plan.variants[0].profiles
    models = _by_profile(networks, [profile.name for profile in profiles])
    target = TargetWithoutTools(variant.fingerprint, recipe.hardware)

    def drafts(config: BuilderConfig) -> list[Draft]:
        made: list[Draft] = []

        def draft(profile: Profile, timed_us: Mapping[str, float] | None) -> Draft:
            return make_draft(
                profile.name,
                models[profile.name],
                config,
                target,
                num_workers=profile.num_workers,
                trace=None,
                first=made[0] if made else None,
                timed_us=timed_us,
            )

        for number, (profile, rows) in enumerate(zip(profiles, details.variants[0], strict=True)):
            report("network", number, len(profiles))
            one = draft(profile, None)
            if one.contested and not is_recorded(one, rows.operations):
                one = draft(profile, recorded_times(one.contested, rows.operations))
            made.append(one)
        return made

    found = drafts(config_of(recipe, is_checked=False))
    own = details.variants[0]
    report("pack", 0, 1)
    tuned = [
        recorded_operations(draft, profile, rows, target)
        for draft, profile, rows in zip(found, profiles, own, strict=True)
    ]
    weights = packed_region(plan, tuned, own, target.target)
    _, new_digest = encode_chunks(weights.data, plan.chunk_lengths)
    if new_digest == opened.weights_sha256:
        whole = bytes(opened.data)
        if not plan.weights:
            whole = filled_plan(whole, weights.data, source=opened.source)
        if signing_key is not None:
            filled = replace(plan, weights=weights.data)
            whole = plan_bytes(filled, signing_key=signing_key)
        return RefittedPlan(whole, True, False, {})
    if must_be_same:
        raise RefitError(
            f"plan {opened.source}: the model's weights are not those that the plan was built with"
        )
    report("check", 0, 1)
    if is_checked:
        found = drafts(config_of(recipe, is_checked=True))
    plan = _with_model(opened, weights, next(iter(models.values())))
    plan, accuracy = _with_canaries(plan, found)
    container = read_container(opened.data, source=opened.source)
    was_signed = container.find(SectionKind.SIGNATURE) is not None
    return RefittedPlan(
        plan_bytes(plan, signing_key=signing_key),
        is_same=False,
        lost_signature=was_signed and signing_key is None,
        accuracy=accuracy,
    )


def _by_profile(
    networks: Network | Mapping[str, Network], names: list[str]
) -> Mapping[str, Network]:
    if isinstance(networks, Network):
        if len(names) == 1:
            return {names[0]: networks}
        networks = {}
    if list(networks) != names:
        raise RefitError(
            f"the plan has the profiles {', '.join(names)}; give the model in the shapes of each, "
            f"in this order, not of {', '.join(networks) or 'one alone'}"
        )
    return networks


def _with_model(opened: RefittablePlan, weights: npt.NDArray[np.uint8], model: Network) -> Plan:
    """The plan with weights, naming the model that they are from."""
    origin = model.origin
    recipe = replace(opened.recipe, files=origin.files if origin is not None else ())
    details = encode_details(replace(opened.details, recipe=recipe))
    return replace(opened.plan, weights=weights.data, details=details)


def _with_canaries(plan: Plan, drafts: list[Draft]) -> tuple[Plan, dict[str, float]]:
    """The plan with what it computes from now on: where it runs here as it does, else by reference.

    Latencies stay: the same code runs on the same shapes.
    """
    variant = plan.variants[0]
    runs_here = _runs_here(plan)
    trials = try_plan_here(plan, CANARY_SEED, [False] * len(drafts)) if runs_here else None
    accuracy: dict[str, float] = {}
    for index, draft in enumerate(drafts):
        old, storage = variant.profiles[index].canary, draft.precision.storage
        latency_us = old.latency_us if old is not None else None
        if trials is not None:
            outputs = trials[index].outputs
            if draft.reference is not None:
                errors = check_outputs(draft.reference, outputs, ERROR_LIMITS[storage])
                prefix = f"{draft.name}: " if index else ""
                accuracy |= {prefix + name: error for name, error in errors.items()}
            canary = make_canary(plan.bindings, outputs, latency_us, TOLERANCE_OF_SAME_CODE)
        elif draft.reference is not None:
            tolerance = TOLERANCE_OF_PRECISION[storage]
            canary = make_canary(plan.bindings, draft.reference, latency_us, tolerance)
        elif old is not None:
            raise RefitError(
                "the plan's canary expects outputs of the old weights, and the plan does not run "
                "on this machine: refit it with the check, which computes a reference"
            )
        else:
            continue
        plan = with_canary(plan, index, canary)
    return plan, accuracy


def _runs_here(plan: Plan) -> bool:
    fingerprint = plan.variants[0].fingerprint
    if fingerprint.device_kind == "cuda":
        return local_gpu(fingerprint) is not None
    return not compare(fingerprint, local_fingerprint())


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    pass
