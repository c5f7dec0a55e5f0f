"""Translation rules by operator: found by scanning `ops/`, chosen by schema version.

A rule lists the schema versions that it implements. The version that a model means follows from its
opset; one that the rule does not list is an error and never a guess.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder_host.importers.onnx import ops

if TYPE_CHECKING:
    from builder_host.importers.onnx.node import Node
    from builder_host.importers.onnx.values import Value

Translation = Callable[["Node"], "Value | Sequence[Value | None]"]


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """How one operator family becomes layers.

    Attributes:
        op_types: operators that the translation serves.
        since: schema versions that it implements (`since_version` of the ONNX schema).
        translate: emits layers and returns the outputs in order; a missing tail or None means that
            an output is not offered.
        domain: operator domain; "" is ai.onnx.
    """

    op_types: tuple[str, ...]
    since: tuple[int, ...]
    translate: Translation
    domain: str = ""


def operator(
    *op_types: str, since: Sequence[int], domain: str = ""
) -> Callable[[Translation], OperatorRule]:
    """Decorator that turns a translation into the OperatorRule which the scan finds."""

    def wrap(translate: Translation) -> OperatorRule:
        return OperatorRule(op_types, tuple(since), translate, domain)

    return wrap


@functools.cache
def rules() -> dict[tuple[str, str, int], OperatorRule]:
    """All rules by (domain, operator, schema version). Raises ValueError for duplicates."""
    found: dict[tuple[str, str, int], OperatorRule] = {}
    for info in sorted(pkgutil.iter_modules(ops.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{ops.__name__}.{info.name}")
        for rule in vars(module).values():
            if not isinstance(rule, OperatorRule):
                continue
            for op_type in rule.op_types:
                for version in rule.since:
                    key = (rule.domain, op_type, version)
                    if found.setdefault(key, rule) is not rule:
                        raise ValueError(f"{module.__name__}: {op_type} v{version} has two rules")
    return found


def find_rule(domain: str, op_type: str, version: int) -> OperatorRule | None:
    """The rule for exactly this schema version, if there is one."""
    return rules().get((domain, op_type, version))


@functools.cache
def supported_versions(domain: str, op_type: str) -> tuple[int, ...]:
    """Schema versions of an operator that have a rule, ascending; empty for an unknown operator."""
    return tuple(sorted(v for d, o, v in rules() if (d, o) == (domain, op_type)))


@functools.cache
def supported_operators() -> tuple[str, ...]:
    """Names of all operators of ai.onnx that have a rule, sorted."""
    return tuple(sorted({o for d, o, _ in rules() if not d}))


def nearest_operators(op_type: str) -> tuple[str, ...]:
    """Up to three supported operators with similar names, best first.

    Names that begin alike over their whole shorter length come first, then those close by letters.
    """
    wanted = op_type.lower()
    by_lower = {name.lower(): name for name in supported_operators()}
    alike = [n for n in by_lower if len(n) > 2 and (wanted.startswith(n) or n.startswith(wanted))]
    alike.sort(key=lambda n: abs(len(n) - len(wanted)))
    close = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.65)
    return tuple(by_lower[name] for name in dict.fromkeys([*alike, *close]))[:3]
