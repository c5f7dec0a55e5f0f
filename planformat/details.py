"""What a plan says for people and tools about how it came about (SPEC.md section 4.5).

Running a plan needs none of it: the section may be ignored, and whoever ships plans may strip it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from planformat.errors import PlanFormatError
from planformat.plan import Plan


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
    """One entry per variant: its profiles in the plan's order."""

    variants: tuple[tuple[ProfileDetails, ...], ...]


def encode_details(details: PlanDetails) -> bytes:
    """Content of the DETAILS section."""
    tree = asdict(details)
    for operation in (o for v in tree["variants"] for profile in v for o in profile["operations"]):
        for tensor in (*operation["inputs"], *operation["outputs"]):
            for name in ("model_name", "scale"):
                if not tensor[name]:
                    del tensor[name]  # absent means the default
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


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
        details = PlanDetails(
            tuple(tuple(_profile(p) for p in _list(v)) for v in _list(_field(tree, "variants")))
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
        _text(tree, "name"),
        tuple(_operation(row) for row in _list(_field(tree, "operations"))),
        tuple(
            ArenaDetails(
                _text(row, "name"),
                offset=_count(row, "offset"),
                num_bytes=_count(row, "num_bytes"),
                first=_count(row, "first"),
                last=_count(row, "last"),
            )
            for row in _list(_field(tree, "arena"))
        ),
    )


def _operation(tree: Any) -> OperationDetails:
    return OperationDetails(
        name=_text(tree, "name"),
        kind=_text(tree, "kind"),
        origin=_text(tree, "origin"),
        params=_text(tree, "params"),
        epilogue=_text(tree, "epilogue"),
        num_operations=_count(tree, "num_operations"),
        inputs=tuple(_tensor(row) for row in _list(_field(tree, "inputs"))),
        outputs=tuple(_tensor(row) for row in _list(_field(tree, "outputs"))),
        steps=tuple(_whole(step, "a step") for step in _list(_field(tree, "steps"))),
        num_candidates=_count(tree, "num_candidates"),
    )


def _tensor(tree: Any) -> TensorDetails:
    is_constant = _field(tree, "is_constant")
    if not isinstance(is_constant, bool):
        raise TypeError(f"is_constant is {is_constant!r}, not a boolean")
    return TensorDetails(
        _text(tree, "name"),
        _text(tree, "layout"),
        _count(tree, "num_bytes"),
        is_constant,
        _text(tree, "model_name") if "model_name" in tree else "",
        _scale(tree),
    )


def _field(tree: Any, name: str) -> Any:
    if not isinstance(tree, Mapping):
        raise TypeError(f"expected an object with '{name}'")
    if name not in tree:
        raise ValueError(f"the field '{name}' is missing")
    return tree[name]


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def _text(tree: Any, name: str) -> str:
    value = _field(tree, name)
    if not isinstance(value, str):
        raise TypeError(f"'{name}' is {type(value).__name__}, not a text")
    return value


def _scale(tree: Any) -> float:
    value = tree.get("scale", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise TypeError(f"'scale' is {value!r}, not a finite number of at least 0")
    return float(value)


def _count(tree: Any, name: str) -> int:
    return _whole(_field(tree, name), f"'{name}'")


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{what} is {value!r}, not a whole number of at least 0")
    return value
