"""Results of the ONNX suites: shares by operator, and the support matrix."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import onnx
import onnx.defs

from builder_host.importers.onnx.registry import rules
from support.onnx_suite import CaseResult
from support.onnx_suite_cases import Signature, SuiteCase, signatures

RIGHT = ("passed", "folded")


def share(results: Iterable[CaseResult]) -> tuple[int, int]:
    """Cases that were right, and cases in scope."""
    counts = Counter(r.outcome for r in results)
    right = sum(counts[outcome] for outcome in RIGHT)
    return right, right + counts["failed"]


def table_by_operator(cases: Sequence[SuiteCase], results: Sequence[CaseResult]) -> str:
    """One line per operator: cases that use it, and what became of them."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case, result in zip(cases, results, strict=True):
        for operator in case.operators:
            counts[operator][result.outcome] += 1
    columns = ("passed", "folded", "failed", "out of scope")
    lines = [f"{'operator':34}" + "".join(f"{c:>14}" for c in columns) + f"{'share':>9}"]
    for operator, found in sorted(counts.items()):
        right = sum(found[outcome] for outcome in RIGHT)
        in_scope = right + found["failed"]
        text = f"{right / in_scope:.1%}" if in_scope else "-"
        row = "".join(f"{found[c] or '':>14}" for c in columns)
        lines.append(f"{operator:34}{row}{text:>9}")
    return "\n".join(lines)


def summary(results: Sequence[CaseResult]) -> str:
    """Totals per suite, reasons of what is out of scope, and every failure."""
    lines = []
    for suite in dict.fromkeys(r.suite for r in results):
        own = [r for r in results if r.suite == suite]
        counts = Counter(r.outcome for r in own)
        right, in_scope = share(own)
        text = f"{right / in_scope:.2%}" if in_scope else "-"
        lines.append(
            f"{suite}: {right} of {in_scope} in scope are right ({text}), "
            f"{counts['folded']} of them without a kernel; {counts['out of scope']} out of scope"
        )
    reasons = Counter(r.detail for r in results if r.outcome == "out of scope")
    lines += [f"  out of scope {count:4}: {reason}" for reason, count in reasons.most_common()]
    lines += [f"  FAILED {r.name}: {r.detail}" for r in results if r.outcome == "failed"]
    return "\n".join(lines)


# --- support matrix ----------------------------------------------------------------------------


def save_results(
    path: Path, device: str, model: str, cases: Sequence[SuiteCase], results: Sequence[CaseResult]
) -> None:
    """Write results with the operators that each case exercises, for the support matrix.

    Args:
        path: file to write.
        device: device kind, the heading of a column.
        model: the very device, e.g. `NVIDIA H200`.
        cases: as run.
        results: of the cases, in their order.
    """
    rows = [
        {**asdict(result), "signatures": [list(astuple(s)) for s in _listed(case)]}
        for case, result in zip(cases, results, strict=True)
        if result.outcome != "out of scope"
    ]
    data = {"device": device, "model": model, "onnx": onnx.__version__, "results": rows}
    path.write_text(json.dumps(data, indent=0) + "\n")


def _listed(case: SuiteCase) -> list[Signature]:
    return sorted(signatures(case.model), key=lambda s: (s.operator, s.version, s.dtype))


def support_matrix(sources: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: operator and version by device, with the element types that passed.

    Args:
        sources: contents of files that `save_results` wrote, one per device.
    """
    devices = [source["device"] for source in sources]
    passed: dict[tuple[str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for source in sources:
        for row in source["results"]:
            if row["outcome"] == "passed":
                for operator, version, dtype in row["signatures"]:
                    passed[operator, version][source["device"]].add(dtype)
    known = defaultdict(set)
    for domain, operator, version in rules():
        if domain or version in _schema_versions()[operator]:  # families of rules list a few more
            known[f"{domain}.{operator}" if domain else operator].add(version)
    lines = [
        f"| operator | version | {' | '.join(devices)} | other versions with a rule |",
        "|---|---|" + "---|" * (len(devices) + 1),
    ]
    tested = defaultdict(set)
    for operator, version in passed:
        tested[operator].add(version)
    for operator in sorted({*tested, *known}):
        others = sorted(known[operator] - tested[operator])
        listed = ", ".join(map(str, others))
        if not tested[operator]:
            lines.append(f"| {operator} | | {' | ' * (len(devices) - 1)} | {listed} |")
        for version in sorted(tested[operator]):
            cells = " | ".join(_types(passed[operator, version][d]) for d in devices)
            lines.append(f"| {operator} | {version} | {cells} | {listed} |")
            listed = ""
    return "\n".join(lines) + "\n"


@functools.cache
def _schema_versions() -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    schemas: Any = onnx.defs.get_all_schemas_with_history()
    for schema in schemas:
        if not schema.domain:
            found[schema.name].add(int(schema.since_version))
    return found


_SHORT = {"float": "f32", "double": "f64", "float16": "f16", "bfloat16": "bf16", "bool": "bool"}


def _types(names: Iterable[str]) -> str:
    return " ".join(
        sorted(_SHORT.get(n) or n.replace("uint", "u").replace("int", "i") for n in names)
    )
