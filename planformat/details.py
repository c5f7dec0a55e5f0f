"""What a plan says for people and tools about how it came about (SPEC.md section 4.5).

Running a plan needs none of it: the section may be ignored, and whoever ships plans may strip it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from planformat.details_fields import count, field, items, magnitude, text, whole
from planformat.errors import PlanFormatError
from planformat.plan import Plan
from planformat.recipe import BuildRecipe, read_recipe


@dataclass(frozen=True, slots=True)
class TensorDetails:
    """A tensor that an operation reads or writes.

    Attributes:
        name: of the buffer that holds it, with an offset in bytes where it is a part.
        layout: element type, shape, format and strides, e.g. `1x64x56x56:f16:NHWC`.
        model_name: the model's name for its values; empty where the model has none.
        scale: real value of one step of a tensor quantised here, else 0.
    """

    name: str
    layout: str
    num_bytes: int
    is_constant: bool
    model_name: str = ""
    scale: float = 0.0


@dataclass(frozen=True, slots=True)
class OperationDetails:
    """One fused layer, which one or several steps compute.

    Attributes:
        name: of the layers joined; kind: of the first one; origin: where it stood in the model.
        params: its parameters as text; epilogue: the expression applied to its result, or empty.
        num_operations: floating-point (or integer) operations, a multiply-add counting two.
        steps: indices of its steps in the profile.
        num_candidates: tactics that were compared.
        source_sha256: of the source that its code was compiled from; empty where it is not known.
    """

    name: str
    kind: str
    origin: str
    params: str
    epilogue: str
    num_operations: int
    inputs: tuple[TensorDetails, ...]
    outputs: tuple[TensorDetails, ...]
    steps: tuple[int, ...]
    num_candidates: int
    source_sha256: str = ""


@dataclass(frozen=True, slots=True)
class ArenaDetails:
    """A buffer in the arena: where, and from which to which operation (inclusive) it lives."""

    name: str
    offset: int
    num_bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ProfileDetails:
    """Operations in order and the buffers between them."""

    name: str
    operations: tuple[OperationDetails, ...]
    arena: tuple[ArenaDetails, ...]


@dataclass(frozen=True, slots=True)
class PlanDetails:
    """One entry per variant: its profiles in the plan's order. recipe: None where not stated."""

    variants: tuple[tuple[ProfileDetails, ...], ...]
    recipe: BuildRecipe | None = None


def encode_details(details: PlanDetails) -> bytes:
    """Content of the DETAILS section."""
    tree = asdict(details)
    for operation in (o for v in tree["variants"] for profile in v for o in profile["operations"]):
        _drop_defaults(operation, "source_sha256")
        for tensor in (*operation["inputs"], *operation["outputs"]):
            _drop_defaults(tensor, "model_name", "scale")
    _drop_defaults(tree, "recipe")
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def _drop_defaults(tree: dict[str, Any], *names: str) -> None:
    """What is absent means the default."""
    for name in names:
        if not tree[name]:
            del tree[name]


def plan_details(plan: Plan, *, source: str = "plan") -> PlanDetails | None:
    """The details of a plan, None when it has none.

    Raises:
        PlanFormatError: the section is not what SPEC.md says, or does not fit the plan.
    """
    if not plan.details:
        return None
    where = f"plan {source}: section 'details'"
    try:
        tree = json.loads(bytes(plan.details))
        variants = items(field(tree, "variants"))
        details = PlanDetails(
            tuple(tuple(_profile(p) for p in items(v)) for v in variants),
            read_recipe(tree["recipe"]) if "recipe" in tree else None,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise PlanFormatError(f"{where}: {error}; build the plan again") from error
    _check_fit(plan, details, where)
    return details


def _check_fit(plan: Plan, details: PlanDetails, where: str) -> None:
    if len(details.variants) != len(plan.variants):
        raise PlanFormatError(
            f"{where}: tells of {len(details.variants)} variants, the plan has {len(plan.variants)}"
        )
    for variant, rows in zip(plan.variants, details.variants, strict=True):
        names = [profile.name for profile in variant.profiles]
        if [row.name for row in rows] != names:
            raise PlanFormatError(f"{where}: its profiles are not {', '.join(names)}")
        for profile, row in zip(variant.profiles, rows, strict=True):
            steps = [step for operation in row.operations for step in operation.steps]
            if steps != list(range(len(profile.steps))):
                raise PlanFormatError(
                    f"{where}: profile '{profile.name}' does not list its "
                    f"{len(profile.steps)} steps once each, in order"
                )


def _profile(tree: Any) -> ProfileDetails:
    return ProfileDetails(
        text(tree, "name"),
        tuple(_operation(row) for row in items(field(tree, "operations"))),
        tuple(
            ArenaDetails(
                text(row, "name"),
                offset=count(row, "offset"),
                num_bytes=count(row, "num_bytes"),
                first=count(row, "first"),
                last=count(row, "last"),
            )
            for row in items(field(tree, "arena"))
        ),
    )


def _operation(tree: Any) -> OperationDetails:
    return OperationDetails(
        name=text(tree, "name"),
        kind=text(tree, "kind"),
        origin=text(tree, "origin"),
        params=text(tree, "params"),
        epilogue=text(tree, "epilogue"),
        num_operations=count(tree, "num_operations"),
        inputs=tuple(_tensor(row) for row in items(field(tree, "inputs"))),
        outputs=tuple(_tensor(row) for row in items(field(tree, "outputs"))),
        steps=tuple(whole(step, "a step") for step in items(field(tree, "steps"))),
        num_candidates=count(tree, "num_candidates"),
        source_sha256=text(tree, "source_sha256") if "source_sha256" in tree else "",
    )


def _tensor(tree: Any) -> TensorDetails:
    is_constant = field(tree, "is_constant")
    if not isinstance(is_constant, bool):
        raise TypeError(f"is_constant is {is_constant!r}, not a boolean")
    return TensorDetails(
        text(tree, "name"),
        text(tree, "layout"),
        count(tree, "num_bytes"),
        is_constant,
        text(tree, "model_name") if "model_name" in tree else "",
        magnitude(tree.get("scale", 0.0), "'scale'"),
    )
