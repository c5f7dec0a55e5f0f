"""What a node means by its schema, and whether a rule exists; all problems found without shapes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.defs

from builder_host.importers.onnx.registry import (
    OperatorRule,
    find_rule,
    nearest_operators,
    supported_versions,
)

_OVERRIDE = (
    "write a plugin for it (docs/plugins.md), give another output before it with --outputs, or "
    "rewrite the model without it"
)


def domain_of(name: str) -> str:
    """Operator domain with the two spellings of the default one made equal."""
    return "" if name == "ai.onnx" else name


def opset_versions(entries: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Opset version by domain."""
    return {domain_of(e.domain): int(e.version) for e in entries}


@dataclass(frozen=True, slots=True)
class Support:
    """A node's schema version and rule.

    `schema` is an onnx.defs.OpSchema (untyped in the stubs) or None. A node without a rule may have
    a schema whose function body can be expanded instead.
    """

    version: int
    rule: OperatorRule | None
    schema: Any
    problems: tuple[str, ...]


def node_support(node: onnx.NodeProto, opsets: Mapping[str, int]) -> Support:
    """Look up schema and rule of a node; the problems say what is unknown or unsupported."""
    domain = domain_of(node.domain)
    shown = f"{domain or 'ai.onnx'}.{node.op_type}"
    opset = opsets.get(domain)
    if opset is None:
        text = f"operator {shown}: the model imports no opset of domain '{domain or 'ai.onnx'}'"
        return Support(0, None, None, (f"{text}; export it again",))
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return _without_schema(node, domain, opset, shown)
    version = int(schema.since_version)
    rule = find_rule(domain, node.op_type, version)
    expandable = schema.has_function or schema.has_context_dependent_function
    if rule is None and not expandable:
        return Support(version, None, None, (_unsupported(node, domain, opset, shown, version),))
    return Support(version, rule, schema, tuple(_schema_problems(node, schema, shown)))


def _without_schema(node: onnx.NodeProto, domain: str, opset: int, shown: str) -> Support:
    for version in reversed(supported_versions(domain, node.op_type)):
        if domain and version <= opset:
            return Support(version, find_rule(domain, node.op_type, version), None, ())
    return Support(0, None, None, (_unsupported(node, domain, opset, shown, None),))


def _unsupported(
    node: onnx.NodeProto, domain: str, opset: int, shown: str, version: int | None
) -> str:
    versions = supported_versions(domain, node.op_type)
    if versions and version is not None:
        known = ", ".join(map(str, versions))
        return (
            f"operator {shown} (opset {opset}) means version {version} of the operator; supported "
            f"are {known}: convert the model with onnx.version_converter"
        )
    near = nearest_operators(node.op_type)
    hint = f"nearest supported: {', '.join(near)}" if near else "nothing similar is supported"
    return f"operator {shown} (opset {opset}) is not supported; {hint}; {_OVERRIDE}"


def _schema_problems(node: onnx.NodeProto, schema: Any, shown: str) -> list[str]:
    problems = []
    stated = [a.name for a in node.attribute]
    for name in dict.fromkeys(stated):
        if stated.count(name) > 1:
            problems.append(f"operator {shown}: attribute '{name}' is stated twice")
        if name not in schema.attributes:
            near = difflib.get_close_matches(name, schema.attributes, n=3, cutoff=0.5)
            known = ", ".join(near or sorted(schema.attributes)) or "none"
            problems.append(
                f"operator {shown} version {schema.since_version} has no attribute '{name}'; "
                f"{'nearest' if near else 'its attributes'}: {known}"
            )
    for name, attribute in sorted(schema.attributes.items()):
        if attribute.required and name not in stated:
            problems.append(f"operator {shown}: the required attribute '{name}' is missing")
    count = len(node.input)
    if not schema.min_input <= count <= schema.max_input:
        problems.append(
            f"operator {shown} takes {schema.min_input} to {schema.max_input} inputs, got {count}"
        )
    if not schema.min_output <= len(node.output) <= schema.max_output:
        problems.append(
            f"operator {shown} has {schema.min_output} to {schema.max_output} outputs, "
            f"got {len(node.output)}"
        )
    return problems
