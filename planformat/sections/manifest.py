"""Section MANIFEST: everything but weights and code, as protobuf (manifest.proto, SPEC.md 4.1)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from planformat.datatypes import DataType, TensorFormat
from planformat.errors import PlanFormatError, PlanVersionError
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Buffer,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)
from planformat.sections.manifest_fields import MANIFEST
from planformat.version import VERSION_MAJOR, VERSION_MINOR
from planformat.wire import WireError, decode_message

_E = TypeVar("_E", bound=enum.Enum)
_ONE = (1, 1, 1)
_DTYPES = {member.value: member for member in DataType}
_FORMATS = {member.value: member for member in TensorFormat}
_CODE_KINDS = {member.value: member for member in CodeKind}
_ARGUMENT_KINDS = {member.value: member for member in ArgumentKind}


def encode_manifest(plan: Plan, code_sections: Sequence[Sequence[int]]) -> bytes:
    """The section's bytes.

    Args:
        plan: checked by `validate.check_plan`.
        code_sections: for each variant and code object, its index among the CODE sections.
    """
    from planformat.manifest_messages import message_class

    manifest = message_class("Manifest")(name=plan.name)
    for binding in plan.bindings:
        manifest.bindings.add(
            name=binding.name,
            is_input=binding.is_input,
            dtype=binding.dtype.value,
            format=binding.format.value,
        )
    for variant, sections in zip(plan.variants, code_sections, strict=True):
        _encode_variant(manifest.variants.add(), variant, sections)
    _encode_mapping(manifest.provenance, plan.provenance)
    return bytes(manifest.SerializeToString(deterministic=True))


def _encode_mapping(rows: Any, mapping: Mapping[str, str]) -> None:
    for key in sorted(mapping):
        rows.add(key=key, value=mapping[key])


def _encode_variant(message: Any, variant: Variant, sections: Sequence[int]) -> None:
    message.device_kind = variant.fingerprint.device_kind
    _encode_mapping(message.fingerprint, variant.fingerprint.fields)
    for code, section in zip(variant.code_objects, sections, strict=True):
        message.code_objects.add(
            kind=code.kind.value,
            architecture=code.architecture,
            toolchain=code.toolchain,
            section=section,
        )
    for kernel in variant.kernels:
        message.kernels.add(symbol=kernel.symbol, code_object=kernel.code_object)
    for profile in variant.profiles:
        row = message.profiles.add(
            name=profile.name,
            arena_bytes=profile.arena_bytes,
            arena_lower_bound_bytes=profile.arena_lower_bound_bytes,
            num_workers=profile.num_workers,
        )
        for shape in profile.shapes:
            row.shapes.add(dims=shape)
        for step in profile.steps:
            _encode_step(row.steps.add(), step)
        if profile.canary is not None:
            _encode_canary(row.canary, profile.canary)


def _encode_step(message: Any, step: Step) -> None:
    message.name = step.name
    message.kernel = step.kernel
    message.grid.extend(step.grid)
    if step.block != _ONE:
        message.block.extend(step.block)
    if step.cluster != _ONE:
        message.cluster.extend(step.cluster)
    for argument in step.arguments:
        message.arguments.add(
            kind=argument.kind.value, value=argument.value, offset_bytes=argument.offset_bytes
        )
    message.shared_memory_bytes = step.shared_memory_bytes
    message.scratch_bytes_per_worker = step.scratch_bytes_per_worker
    message.is_concurrent = step.is_concurrent
    message.is_dependent_launch = step.is_dependent_launch
    message.tactic = step.tactic
    if step.measured_us is not None:
        message.measured_us = step.measured_us
    if step.predicted_us is not None:
        message.predicted_us = step.predicted_us


def _encode_canary(message: Any, canary: Canary) -> None:
    message.SetInParent()
    message.seed = canary.seed
    message.strides.extend(canary.strides)
    message.outputs.extend(canary.outputs)
    message.absolute_tolerance = canary.absolute_tolerance
    message.relative_tolerance = canary.relative_tolerance
    if canary.latency_us is not None:
        message.latency_us = canary.latency_us


class _Decoder:
    """Turns decoded messages into dataclasses; knows what an error must say about the place."""

    def __init__(
        self,
        code: Sequence[memoryview],
        weights: Buffer,
        chunk_lengths: tuple[int, ...],
    ) -> None:
        self._code = code
        self._weights = weights
        self._chunk_lengths = chunk_lengths
        self._unused_code = set(range(len(code)))
        self._builders: Mapping[str, Callable[[dict[str, Any]], Any]] = {
            "Manifest": self._manifest,
            "KeyValue": self._key_value,
            "Binding": self._binding,
            "Variant": self._variant,
            "CodeObject": self._code_object,
            "Kernel": self._kernel,
            "Profile": self._profile,
            "Shape": self._shape,
            "Step": self._step,
            "Argument": self._argument,
            "Canary": self._canary,
        }

    def build(self, message: str, row: dict[str, Any]) -> Any:
        return self._builders[message](row)

    def _manifest(self, row: dict[str, Any]) -> Plan:
        if self._unused_code:
            raise WireError(f"code section {min(self._unused_code)} belongs to no code object", 0)
        return Plan(
            name=row["name"],
            bindings=tuple(row["bindings"]),
            variants=tuple(row["variants"]),
            weights=self._weights,
            chunk_lengths=self._chunk_lengths,
            provenance=_mapping(row, "provenance"),
        )

    def _key_value(self, row: dict[str, Any]) -> tuple[str, str]:
        return row["key"], row["value"]

    def _binding(self, row: dict[str, Any]) -> Binding:
        return Binding(
            row["name"],
            row["is_input"],
            _member(_DTYPES, row, "dtype"),
            _member(_FORMATS, row, "format"),
        )

    def _variant(self, row: dict[str, Any]) -> Variant:
        return Variant(
            fingerprint=DeviceFingerprint(row["device_kind"], _mapping(row, "fingerprint")),
            code_objects=tuple(row["code_objects"]),
            kernels=tuple(row["kernels"]),
            profiles=tuple(row["profiles"]),
        )

    def _code_object(self, row: dict[str, Any]) -> CodeObject:
        section = row["section"]
        if section >= len(self._code):
            raise WireError(
                f"a code object is code section {section}, the plan has {len(self._code)}",
                row["@"],
            )
        self._unused_code.discard(section)
        return CodeObject(
            _member(_CODE_KINDS, row, "kind"),
            row["architecture"],
            row["toolchain"],
            self._code[section],
        )

    def _kernel(self, row: dict[str, Any]) -> Kernel:
        return Kernel(row["symbol"], row["code_object"])

    def _profile(self, row: dict[str, Any]) -> Profile:
        return Profile(
            name=row["name"],
            shapes=tuple(row["shapes"]),
            steps=tuple(row["steps"]),
            arena_bytes=row["arena_bytes"],
            arena_lower_bound_bytes=row["arena_lower_bound_bytes"],
            num_workers=row["num_workers"],
            canary=row["canary"],
        )

    def _shape(self, row: dict[str, Any]) -> tuple[int, ...]:
        return tuple(row["dims"])

    def _step(self, row: dict[str, Any]) -> Step:
        return Step(
            name=row["name"],
            kernel=row["kernel"],
            grid=_triple(row, "grid"),
            arguments=tuple(row["arguments"]),
            block=_triple(row, "block"),
            cluster=_triple(row, "cluster"),
            shared_memory_bytes=row["shared_memory_bytes"],
            scratch_bytes_per_worker=row["scratch_bytes_per_worker"],
            is_concurrent=row["is_concurrent"],
            is_dependent_launch=row["is_dependent_launch"],
            tactic=row["tactic"],
            measured_us=row["measured_us"],
            predicted_us=row["predicted_us"],
        )

    def _argument(self, row: dict[str, Any]) -> Argument:
        return Argument(_member(_ARGUMENT_KINDS, row, "kind"), row["value"], row["offset_bytes"])

    def _canary(self, row: dict[str, Any]) -> Canary:
        return Canary(
            seed=row["seed"],
            strides=tuple(row["strides"]),
            outputs=tuple(row["outputs"]),
            absolute_tolerance=row["absolute_tolerance"],
            relative_tolerance=row["relative_tolerance"],
            latency_us=row["latency_us"],
        )


def _member(members: Mapping[int, _E], row: dict[str, Any], name: str) -> _E:
    value = row[name]
    member = members.get(value)
    if member is None:
        known = ", ".join(f"{number} {known.name}" for number, known in members.items())
        raise WireError(f"{name} is {value}, known are {known}", row["@"], is_unknown=value != 0)
    return member


def _mapping(row: dict[str, Any], name: str) -> dict[str, str]:
    pairs = row[name]
    for (before, _), (key, _) in pairwise(pairs):
        if key <= before:
            raise WireError(
                f"{name}: key {key!r} stands after {before!r}, keys must ascend", row["@"]
            )
    return dict(pairs)


def _triple(row: dict[str, Any], name: str) -> tuple[int, int, int]:
    values = row[name]
    if not values and name != "grid":
        return _ONE
    if len(values) != 3:
        raise WireError(f"{name} has {len(values)} values, must have 3", row["@"])
    return values[0], values[1], values[2]


def decode_manifest(
    section: memoryview,
    offset: int,
    *,
    weights: Buffer,
    chunk_lengths: tuple[int, ...],
    code: Sequence[memoryview],
    minor: int,
    source: str,
) -> Plan:
    """Decode the section; `validate.check_plan` must still look at the result.

    Args:
        section: content of the MANIFEST section.
        offset: its first byte in the file.
        weights: the weights region.
        chunk_lengths: from section CHUNKS.
        code: content of each CODE section in table order.
        minor: of the plan's format version.
        source: name of the plan for messages.

    Raises:
        PlanFormatError: the bytes break the wire format or the schema.
        PlanVersionError: a field or enumerator of a newer minor version.
    """
    decoder = _Decoder(code, weights, chunk_lengths)
    try:
        plan = decode_message(bytes(section), MANIFEST, decoder.build)
    except WireError as error:
        where = f"plan {source}: section 'manifest', byte {offset + error.offset:,}: {error}"
        if error.is_unknown and minor > VERSION_MINOR:
            raise PlanVersionError(
                f"{where}; the plan has format {VERSION_MAJOR}.{minor}, this reader knows "
                f"{VERSION_MAJOR}.{VERSION_MINOR}: update edgeplan on this device"
            ) from error
        raise PlanFormatError(f"{where}; rebuild the plan") from error
    assert isinstance(plan, Plan)
    return plan
