"""What differs between two plans: bindings, device, tactics, layouts, times, weights, code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder_host.inspection.operations import OperationRow, operation_rows, required_details
from planformat.plan import Plan, Profile, Step, Variant

_TIME_NOISE = 0.05  # times that differ by less are not told


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact: where, and what the first and the second plan say; empty when one lacks it."""

    subject: str
    first: str
    second: str


def plan_differences(first: Plan, second: Plan, names: tuple[str, str]) -> list[Difference]:
    """All differences, in the order of the plan's parts.

    Args:
        first: with details.
        second: with details.
        names: of the two for messages.

    Raises:
        PlanError: a plan carries no details.
    """
    return [
        *_mappings("", {"name": first.name}, {"name": second.name}),
        *_mappings("binding ", _bindings(first), _bindings(second)),
        *_mappings("provenance ", first.provenance, second.provenance),
        *_variants(first, second, names),
        *_weights(first, second),
    ]


def _shared_bytes(first: Sequence[tuple[bytes, int]], second: Sequence[tuple[bytes, int]]) -> int:
    """Bytes of the second plan's weights that the first one holds too, by chunk."""
    known = set(first)
    return sum(length for digest, length in second if (digest, length) in known)


def _variants(first: Plan, second: Plan, names: tuple[str, str]) -> Iterator[Difference]:
    details = [required_details(p, n) for p, n in zip((first, second), names, strict=True)]
    pairs = zip(first.variants, second.variants, strict=False)
    for number, (a, b) in enumerate(pairs):
        place = f"variant {number} " if len(first.variants) > 1 else ""
        fields = (a.fingerprint.fields, b.fingerprint.fields)
        yield from _mappings(f"{place}device ", *fields)
        yield from _mappings(f"{place}code ", _code(a), _code(b))
        rows = [
            {
                profile.name: operation_rows(profile, own.operations)
                for profile, own in zip(variant.profiles, tree.variants[number], strict=True)
            }
            for variant, tree in ((a, details[0]), (b, details[1]))
        ]
        profiles = [{p.name: p for p in variant.profiles} for variant in (a, b)]
        for name in dict.fromkeys([*profiles[0], *profiles[1]]):
            where = f"{place}profile {name} "
            if name not in profiles[0] or name not in profiles[1]:
                has = ["there" if name in found else "" for found in profiles]
                yield Difference(where.strip(), *has)
                continue
            yield from _mappings(where, _profile(profiles[0][name]), _profile(profiles[1][name]))
            yield from _operations(where, rows[0][name], rows[1][name])
    if len(first.variants) != len(second.variants):
        yield Difference("variants", str(len(first.variants)), str(len(second.variants)))


def _operations(
    where: str, first: list[OperationRow], second: list[OperationRow]
) -> Iterator[Difference]:
    rows = [{row.details.name: row for row in found} for found in (first, second)]
    for name in dict.fromkeys([*rows[0], *rows[1]]):
        a, b = rows[0].get(name), rows[1].get(name)
        if a is None or b is None:
            texts = ["" if row is None else row.tactic for row in (a, b)]
            yield Difference(f"{where}{name}", *texts)
            continue
        facts = [
            {
                "tactic": row.tactic,
                "result": f"{row.element_type} {row.format}",
                "parameters": row.details.params,
                "epilogue": row.details.epilogue,
                "constants": f"{row.weight_bytes:,} bytes",
            }
            for row in (a, b)
        ]
        yield from _mappings(f"{where}{name}: ", *facts)
        if a.time_us and b.time_us and abs(a.time_us / b.time_us - 1) > _TIME_NOISE:
            yield Difference(f"{where}{name}: time", f"{a.time_us:.2f} µs", f"{b.time_us:.2f} µs")


def _weights(first: Plan, second: Plan) -> Iterator[Difference]:
    chunks = (list(_chunks(first)), list(_chunks(second)))
    if chunks[0] == chunks[1]:
        return
    shared = _shared_bytes(*chunks)
    yield Difference(
        "weights",
        f"{len(first.weights):,} bytes",
        f"{len(second.weights):,} bytes, {shared:,} of them in chunks of the first",
    )


def _chunks(plan: Plan) -> Iterator[tuple[bytes, int]]:
    view, at = memoryview(plan.weights), 0
    for length in plan.chunk_lengths:
        yield hashlib.sha256(view[at : at + length]).digest(), length
        at += length


def _bindings(plan: Plan) -> Mapping[str, str]:
    return {
        binding.name: f"{'input' if binding.is_input else 'output'} {binding.dtype.text} "
        + " | ".join("x".join(map(str, p.shapes[i])) for p in plan.variants[0].profiles)
        for i, binding in enumerate(plan.bindings)
    }


def _profile(profile: Profile) -> Mapping[str, str]:
    latency = profile.canary.latency_us if profile.canary else None
    return {
        "steps": str(len(profile.steps)),
        "arena": f"{profile.arena_bytes:,} bytes",
        "workers": str(profile.num_workers),
        "latency": "" if latency is None else f"{latency:.1f} µs",
        "launches": _digest(*(_launch(step) for step in profile.steps)),
        "canary": _digest(*(profile.canary.outputs if profile.canary else ())),
    }


def _launch(step: Step) -> bytes:
    """All that a step passes to the device, and nothing of its times."""
    return repr(replace(step, measured_us=None, predicted_us=None)).encode()


def _digest(*parts: bytes) -> str:
    """Twelve digits that tell contents apart which have nothing else to show."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[
        :12
    ]


def _code(variant: Variant) -> Mapping[str, str]:
    return {
        "toolchain": ", ".join(sorted({code.toolchain for code in variant.code_objects})),
        "size": f"{sum(len(code.data) for code in variant.code_objects):,} bytes",
        "kernels": str(len(variant.kernels)),
        "content": _digest(*(bytes(code.data) for code in variant.code_objects)),
    }


def _mappings(
    prefix: str, first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[Difference]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name, "") != second.get(name, ""):
            yield Difference(f"{prefix}{name}", first.get(name, ""), second.get(name, ""))
