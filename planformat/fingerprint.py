"""Device fingerprints: what identifies the device that a plan was built for, and comparison."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from planformat.errors import FingerprintMismatchError, PlanFormatError

_X86_FEATURES = """
    sse4_2 avx avx2 fma f16c bmi1 bmi2 avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni
    avx512_bf16 avx512_fp16 avx_vnni avx_vnni_int8 amx_tile amx_int8 amx_bf16
"""
X86_FEATURES = frozenset(_X86_FEATURES.split())
"""Names (as in /proc/cpuinfo `flags`) that may stand in `cpu.features` on x86_64."""

_AARCH64_FEATURES = """
    asimd fphp asimdhp asimddp asimdfhm i8mm bf16 sve sve2 svei8mm svebf16 sme sme2
"""
AARCH64_FEATURES = frozenset(_AARCH64_FEATURES.split())
"""Names (as in /proc/cpuinfo `Features`) that may stand in `cpu.features` on aarch64."""


@dataclass(frozen=True, slots=True)
class DeviceFingerprint:
    """Facts about one device.

    Attributes:
        device_kind: `cpu` or `cuda`.
        fields: name to canonical text, e.g. `cpu.model` -> `AMD EPYC 25/17/1`. Field names and
            their meaning are listed in SPEC.md section 6.
    """

    device_kind: str
    fields: Mapping[str, str] = field(default_factory=dict)


class Rule(enum.Enum):
    """When a device value satisfies a plan value. `value` is the word in SPEC.md."""

    EXACT = "exact"
    AT_LEAST = "at least"  # dotted decimal numbers, the device's is not smaller
    SUPERSET = "exact, relaxable to superset"  # words parted by blanks


class FieldRule(NamedTuple):
    """How one fingerprint field is compared, why it matters and what to do about it.

    can_relax: `allow` may name the field; without it the code could not run at all.
    """

    rule: Rule
    why: str
    what_to_do: str
    can_relax: bool = True


_RETUNE = "rebuild the plan for this device, or allow the field and accept untuned speed"
_REBUILD = "rebuild the plan with this device as its target"

FIELD_RULES: Mapping[str, FieldRule] = {
    "cpu.architecture": FieldRule(
        Rule.EXACT, "machine code runs on one instruction set only", _REBUILD, can_relax=False
    ),
    "cpu.vendor": FieldRule(Rule.EXACT, "tactics were timed on another core design", _RETUNE),
    "cpu.model": FieldRule(Rule.EXACT, "tactics were timed on another core design", _RETUNE),
    "cpu.features": FieldRule(
        Rule.SUPERSET,
        "kernels use these instructions; a missing one stops the process with SIGILL",
        "rebuild for this device; the field can be allowed only when the device has every feature",
    ),
    "cpu.l1d_bytes": FieldRule(Rule.EXACT, "inner tiles were sized for this cache", _RETUNE),
    "cpu.l2_bytes": FieldRule(Rule.EXACT, "outer tiles were sized for this cache", _RETUNE),
    "cpu.l3_bytes": FieldRule(
        Rule.EXACT, "tactics were timed with weights in a cache of this size", _RETUNE
    ),
    "cpu.num_cores": FieldRule(
        Rule.EXACT,
        "work was split, and tactics were timed, for this number of cores",
        "give the process as many cores as the plan names, rebuild, or allow the field",
    ),
    "os.glibc": FieldRule(
        Rule.AT_LEAST,
        "code objects may need symbols of this C library version",
        "update the system, or rebuild with this device as the target",
    ),
    "cuda.name": FieldRule(Rule.EXACT, "tactics were timed on another GPU", _RETUNE),
    "cuda.compute_capability": FieldRule(
        Rule.EXACT, "a cubin runs on the architecture it was made for", _REBUILD, can_relax=False
    ),
    "cuda.num_sms": FieldRule(
        Rule.EXACT, "grids were sized to fill this number of multiprocessors", _RETUNE
    ),
    "cuda.core_clock_hz": FieldRule(
        Rule.EXACT,
        "tactics and latency were measured at this clock",
        "set the same power mode and clocks (nvpmodel, jetson_clocks, nvidia-smi -lgc) or rebuild",
    ),
    "cuda.memory_clock_hz": FieldRule(
        Rule.EXACT,
        "tactics and latency were measured at this memory clock",
        "set the same power mode and clocks (nvpmodel, jetson_clocks, nvidia-smi -lmc) or rebuild",
    ),
    "cuda.memory_bytes": FieldRule(
        Rule.AT_LEAST, "the plan was sized for this much memory", _RETUNE
    ),
    "cuda.memory_bus_bits": FieldRule(
        Rule.EXACT, "memory-bound tactics were timed on this bus", _RETUNE
    ),
    "cuda.l2_bytes": FieldRule(Rule.EXACT, "tiles were sized for this cache", _RETUNE),
    "cuda.shared_memory_per_sm_bytes": FieldRule(
        Rule.EXACT, "occupancy follows from this size", _RETUNE
    ),
    "cuda.shared_memory_per_block_bytes": FieldRule(
        Rule.AT_LEAST, "kernels ask for up to this much per block", _REBUILD
    ),
    "cuda.is_integrated": FieldRule(
        Rule.EXACT, "integrated GPUs share memory and bandwidth with the CPU", _RETUNE
    ),
    "cuda.driver_version": FieldRule(
        Rule.AT_LEAST,
        "code made with a newer toolkit needs a driver that knows it",
        "update the driver (on Jetson: the L4T release), or rebuild with an older toolkit",
    ),
    "cuda.cuda_version": FieldRule(
        Rule.AT_LEAST,
        "code made with a newer toolkit needs a driver that knows it",
        "update the driver (on Jetson: the L4T release), or rebuild with an older toolkit",
    ),
    "board.model": FieldRule(
        Rule.EXACT, "boards with one chip differ in memory, power and cooling", _RETUNE
    ),
    "board.release": FieldRule(
        Rule.EXACT,
        "driver, clocks and governors change with the L4T or DRIVE OS release",
        "install the same release, rebuild, or allow the field",
    ),
    "board.power_mode": FieldRule(
        Rule.EXACT,
        "cores and clocks follow the power mode",
        "switch the power mode (nvpmodel -m), rebuild, or allow the field",
    ),
}
"""Fields that the format names; a field not listed here is compared exactly."""

_UNLISTED = FieldRule(Rule.EXACT, "the plan names it as part of its target", _REBUILD)
_DEVICE_KIND = FieldRule(
    Rule.EXACT, "code for one kind of device cannot run on another", _REBUILD, can_relax=False
)


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field in which the device does not satisfy the plan.

    device_value: None when the device does not have, or did not tell, the field.
    """

    field: str
    plan_value: str
    device_value: str | None
    why: str
    what_to_do: str


def compare(
    plan_fingerprint: DeviceFingerprint,
    device_fingerprint: DeviceFingerprint,
    *,
    allow: Collection[str] = (),
) -> tuple[FieldDifference, ...]:
    """Fields in which the device does not satisfy the plan, in order of name.

    Only the fields that the plan states are compared, so that a plan keeps loading when a newer
    runtime probes more.

    Args:
        plan_fingerprint: of the variant.
        device_fingerprint: of the live device.
        allow: field names, or prefixes ending in `*` (`board.*`), whose difference is accepted.
            Differences with which the code cannot run (architecture, compute capability, an
            instruction that is missing) are reported all the same.
    """
    differences = []
    if plan_fingerprint.device_kind != device_fingerprint.device_kind:
        differences.append(
            _difference(
                "device_kind",
                plan_fingerprint.device_kind,
                device_fingerprint.device_kind,
                _DEVICE_KIND,
            )
        )
    for name in sorted(plan_fingerprint.fields):
        plan_value = plan_fingerprint.fields[name]
        device_value = device_fingerprint.fields.get(name)
        rule = FIELD_RULES.get(name, _UNLISTED)
        if _is_satisfied(rule.rule, plan_value, device_value):
            continue
        if _is_allowed(name, allow) and _may_relax(rule, plan_value, device_value):
            continue
        differences.append(_difference(name, plan_value, device_value, rule))
    return tuple(differences)


def describe_differences(differences: Sequence[FieldDifference]) -> str:
    """Several lines of text: each field with both values, why it matters and what to do."""
    return "\n".join(
        f"  {d.field}: the plan has '{d.plan_value}', the device has "
        + ("no such field" if d.device_value is None else f"'{d.device_value}'")
        + f"\n    why: {d.why}\n    do:  {d.what_to_do}"
        for d in differences
    )


def require_match(
    plan_fingerprint: DeviceFingerprint,
    device_fingerprint: DeviceFingerprint,
    *,
    allow: Collection[str] = (),
    source: str = "plan",
) -> None:
    """Check that the device is the one that the plan was built for.

    Args:
        plan_fingerprint: what the plan states.
        device_fingerprint: what the device was found to be.
        allow: names of fields that may differ, as in `compare`.
        source: what the plan is called in the message.

    Raises:
        FingerprintMismatchError: lists every differing field; `allow` as in `compare`.
    """
    select_match((plan_fingerprint,), device_fingerprint, allow=allow, source=source)


def select_match(
    plan_fingerprints: Sequence[DeviceFingerprint],
    device_fingerprint: DeviceFingerprint,
    *,
    allow: Collection[str] = (),
    source: str = "plan",
) -> int:
    """Index of the variant to use: the fewest differing fields before `allow`, then the first.

    Raises:
        FingerprintMismatchError: none fits; lists the differing fields of every variant.
    """
    fitting = [
        (len(compare(candidate, device_fingerprint)), index)
        for index, candidate in enumerate(plan_fingerprints)
        if not compare(candidate, device_fingerprint, allow=allow)
    ]
    if fitting:
        return min(fitting)[1]
    texts = []
    for index, candidate in enumerate(plan_fingerprints):
        differences = compare(candidate, device_fingerprint, allow=allow)
        variant = f" variant {index}" if len(plan_fingerprints) > 1 else ""
        num = len(differences)
        texts.append(
            f"plan {source}:{variant} was built for another device; {num} "
            f"field{'s differ' if num != 1 else ' differs'}:\n{describe_differences(differences)}"
        )
    raise FingerprintMismatchError("\n".join(texts))


def fingerprint_to_json(fingerprint: DeviceFingerprint) -> str:
    """JSON text, keys sorted, one field per line."""
    import json

    content = {"device_kind": fingerprint.device_kind, "fields": dict(fingerprint.fields)}
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def fingerprint_from_json(text: str, *, source: str = "fingerprint") -> DeviceFingerprint:
    """Inverse of `fingerprint_to_json`.

    Raises:
        PlanFormatError: no JSON, or not an object of `device_kind` and `fields` of texts.
    """
    import json

    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanFormatError(f"{source}: not a JSON text: {error}") from error
    if not isinstance(content, dict) or set(content) != {"device_kind", "fields"}:
        raise PlanFormatError(
            f"{source}: expected a JSON object with the keys 'device_kind' and 'fields'; "
            "write one with 'edgeplan probe --json'"
        )
    kind, fields = content["device_kind"], content["fields"]
    if not isinstance(kind, str) or kind not in ("cpu", "cuda"):
        raise PlanFormatError(f"{source}: device_kind is {kind!r}; expected 'cpu' or 'cuda'")
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise PlanFormatError(f"{source}: 'fields' must map field names to texts")
    return DeviceFingerprint(kind, fields)


def _difference(
    name: str, plan_value: str, device_value: str | None, rule: FieldRule
) -> FieldDifference:
    return FieldDifference(name, plan_value, device_value, rule.why, rule.what_to_do)


def _is_allowed(name: str, allow: Collection[str]) -> bool:
    return any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
        for pattern in allow
    )


def _is_satisfied(rule: Rule, plan_value: str, device_value: str | None) -> bool:
    if device_value == plan_value:
        return True
    if device_value is None or rule is not Rule.AT_LEAST:
        return False
    plan_number, device_number = _number(plan_value), _number(device_value)
    return plan_number is not None and device_number is not None and device_number >= plan_number


def _may_relax(rule: FieldRule, plan_value: str, device_value: str | None) -> bool:
    if not rule.can_relax:
        return False
    if rule.rule is Rule.SUPERSET:
        return set(plan_value.split()) <= set((device_value or "").split())
    return True


def _number(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        return None
    numbers = [int(part) for part in parts]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
