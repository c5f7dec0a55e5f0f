"""Rules across the parts of a plan (SPEC.md section 5), run before writing and after reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from planformat import limits
from planformat.datatypes import TensorFormat
from planformat.errors import PlanFormatError
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)
from planformat.tensors import storage_bytes

DEVICE_KINDS = ("cpu", "cuda")

_CODE_KINDS = {
    "cpu": (CodeKind.SHARED_OBJECT,),
    "cuda": (CodeKind.CUBIN, CodeKind.PTX),
}
_CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_SYMBOL = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ$.")
_NOT_FIRST_IN_SYMBOL = "0123456789$."
_UNIT = (1, 1, 1)
_DENSE = (TensorFormat.LINEAR, TensorFormat.NHWC)


class _BrokenRuleError(Exception):
    """Text of a broken rule; the caller knows the place."""


def check_plan(plan: Plan, *, source: str = "plan", is_stripped: bool = False) -> None:
    """Check every rule that spans parts of a plan.

    Args:
        plan: to be written, or just decoded.
        source: name of the plan for messages.
        is_stripped: it has no weights, and its chunk lengths are those of what was taken out.

    Raises:
        PlanFormatError: names the part, the values and the rule.
    """
    place = ["plan " + source]
    try:
        _check_text("name", plan.name, limits.MAX_NAME_BYTES)
        if len(plan.details) > limits.MAX_DETAILS_BYTES:
            raise PlanFormatError(
                f"details have {len(plan.details):,} bytes, allowed are "
                f"{limits.MAX_DETAILS_BYTES:,}"
            )
        _check_mapping("provenance", plan.provenance, limits.MAX_PROVENANCE_FIELDS)
        _check_weights(plan, is_stripped)
        _check_bindings(plan.bindings)
        _check_count("variants", len(plan.variants), 1, limits.MAX_VARIANTS)
        for index, variant in enumerate(plan.variants):
            place[1:] = [f"variant {index}"]
            _check_variant(plan, variant, place)
            place[1:] = [f"variant {index}"]
            if any(variant.fingerprint == other.fingerprint for other in plan.variants[:index]):
                raise _BrokenRuleError("has the fingerprint of an earlier variant; merge them")
    except _BrokenRuleError as error:
        raise PlanFormatError(f"{', '.join(place)}: {error}") from None


def _check_weights(plan: Plan, is_stripped: bool) -> None:
    weights = memoryview(plan.weights)
    if not weights.c_contiguous:
        raise _BrokenRuleError("weights are not one contiguous buffer; copy them into bytes")
    _check_range("weights bytes", weights.nbytes, 0, limits.MAX_REGION_BYTES)
    _check_count("weight chunks", len(plan.chunk_lengths), 0, limits.MAX_CHUNKS)
    total = 0
    for index, length in enumerate(plan.chunk_lengths):
        _check_range(f"length of chunk {index}", length, 1, limits.MAX_REGION_BYTES)
        if length % limits.CHUNK_ALIGNMENT_BYTES and index < len(plan.chunk_lengths) - 1:
            raise _BrokenRuleError(
                f"chunk {index} has {length:,} bytes; every chunk but the last must be a multiple "
                f"of {limits.CHUNK_ALIGNMENT_BYTES}"
            )
        total += length
    if is_stripped:
        _check_range("stripped weights bytes", total, 1, limits.MAX_REGION_BYTES)
        total = 0
    if total != weights.nbytes:
        raise _BrokenRuleError(
            f"the chunks sum to {total:,} bytes, the weights have {weights.nbytes:,}"
        )


def _check_bindings(bindings: tuple[Binding, ...]) -> None:
    _check_count("bindings", len(bindings), 1, limits.MAX_BINDINGS)
    for index, binding in enumerate(bindings):
        _check_text(f"name of binding {index}", binding.name, limits.MAX_NAME_BYTES)
        if index and binding.is_input and not bindings[index - 1].is_input:
            raise _BrokenRuleError(
                f"binding {index} '{binding.name}' is an input after an output; inputs come first"
            )
    if bindings[-1].is_input:
        raise _BrokenRuleError("no binding is an output; a plan needs at least one")
    _check_unique("bindings", (binding.name for binding in bindings))


def _check_variant(plan: Plan, variant: Variant, place: list[str]) -> None:
    kind = variant.fingerprint.device_kind
    if kind not in DEVICE_KINDS:
        raise _BrokenRuleError(f"device kind is '{kind}', known are {', '.join(DEVICE_KINDS)}")
    fields = variant.fingerprint.fields
    _check_mapping("fingerprint", fields, limits.MAX_FINGERPRINT_FIELDS)
    for name in fields:
        if not all(part and _LOWER.issuperset(part) for part in name.split(".")):
            raise _BrokenRuleError(
                f"fingerprint field '{name}' is not made of a-z, 0-9, _ and single dots"
            )
    _check_count("code objects", len(variant.code_objects), 0, limits.MAX_CODE_OBJECTS)
    for index, code in enumerate(variant.code_objects):
        _check_code_object(index, code, kind)
    _check_count("kernels", len(variant.kernels), 0, limits.MAX_KERNELS)
    for index, kernel in enumerate(variant.kernels):
        _check_kernel(index, kernel, len(variant.code_objects))
    _check_count("profiles", len(variant.profiles), 1, limits.MAX_PROFILES)
    _check_unique("profiles", (profile.name for profile in variant.profiles))
    for profile in variant.profiles:
        place[2:] = [f"profile '{profile.name}'"]
        _check_profile(plan, variant, profile, place)


def _check_code_object(index: int, code: CodeObject, device_kind: str) -> None:
    what = f"code object {index}"
    if code.kind not in _CODE_KINDS[device_kind]:
        raise _BrokenRuleError(f"{what} is a {code.kind.name}, the device kind is '{device_kind}'")
    _check_text(f"architecture of {what}", code.architecture, limits.MAX_NAME_BYTES)
    if not _LOWER.issuperset(code.architecture):
        raise _BrokenRuleError(
            f"architecture of {what} is '{code.architecture}', it must be made of a-z, 0-9 and _"
        )
    _check_text(f"toolchain of {what}", code.toolchain, limits.MAX_NAME_BYTES)
    data = memoryview(code.data)
    if not data.c_contiguous:
        raise _BrokenRuleError(f"{what} is not one contiguous buffer; copy it into bytes")
    _check_range(f"bytes of {what}", data.nbytes, 1, limits.MAX_REGION_BYTES)


def _check_kernel(index: int, kernel: Kernel, num_code_objects: int) -> None:
    _check_text(f"symbol of kernel {index}", kernel.symbol, limits.MAX_NAME_BYTES)
    if kernel.symbol[0] in _NOT_FIRST_IN_SYMBOL or not _SYMBOL.issuperset(kernel.symbol):
        raise _BrokenRuleError(
            f"symbol of kernel {index} is '{kernel.symbol}', it must be an identifier"
        )
    _check_index(f"code object of kernel {index}", kernel.code_object, num_code_objects)


def _check_profile(plan: Plan, variant: Variant, profile: Profile, place: list[str]) -> None:
    _check_text("name", profile.name, limits.MAX_NAME_BYTES)
    if len(profile.shapes) != len(plan.bindings):
        raise _BrokenRuleError(
            f"has {len(profile.shapes)} shapes for {len(plan.bindings)} bindings"
        )
    sizes = [
        _binding_bytes(binding, shape)
        for binding, shape in zip(plan.bindings, profile.shapes, strict=True)
    ]
    _check_range("arena bytes", profile.arena_bytes, 0, limits.MAX_REGION_BYTES)
    _check_range(
        "arena lower bound bytes", profile.arena_lower_bound_bytes, 0, limits.MAX_REGION_BYTES
    )
    device_kind = variant.fingerprint.device_kind
    max_workers = limits.MAX_WORKERS if device_kind == "cpu" else 1
    _check_range(f"workers on '{device_kind}'", profile.num_workers, 1, max_workers)
    _check_count("steps", len(profile.steps), 0, limits.MAX_STEPS)
    _check_unique("steps", (step.name for step in profile.steps))
    weights_bytes = sum(plan.chunk_lengths)
    for index, step in enumerate(profile.steps):
        place[3:] = [f"step {index} '{step.name}'"]
        _check_step(step, device_kind, len(variant.kernels))
        for position, argument in enumerate(step.arguments):
            _check_argument(position, argument, sizes, profile.arena_bytes, weights_bytes)
    place[3:] = ["canary"]
    if profile.canary is not None:
        _check_canary(profile.canary, plan.bindings, sizes)
    del place[3:]


def _binding_bytes(binding: Binding, shape: tuple[int, ...]) -> int:
    what = f"shape of binding '{binding.name}'"
    _check_count(f"dimensions in the {what}", len(shape), 0, limits.MAX_RANK)
    for dim in shape:
        _check_range(f"dimension in the {what} {list(shape)}", dim, 1, limits.MAX_DIM)
    try:
        size = storage_bytes(shape, binding.dtype, binding.format)
    except ValueError as error:
        raise _BrokenRuleError(f"{what}: {error}") from None
    _check_range(f"bytes of binding '{binding.name}'", size, 1, limits.MAX_TENSOR_BYTES)
    return size


def _check_step(step: Step, device_kind: str, num_kernels: int) -> None:
    _check_text("name", step.name, limits.MAX_STEP_NAME_BYTES)
    _check_text("tactic", step.tactic, limits.MAX_TEXT_BYTES, may_be_empty=True)
    _check_index("kernel", step.kernel, num_kernels)
    for name, triple in (("grid", step.grid), ("block", step.block), ("cluster", step.cluster)):
        if len(triple) != 3:
            raise _BrokenRuleError(f"{name} is {triple}, it must have 3 values")
        for value in triple:
            _check_range(f"{name} {triple}", value, 1, limits.MAX_GRID)
    if device_kind == "cpu":
        is_plain = step.block == step.cluster == _UNIT and step.grid[1:] == (1, 1)
        if not is_plain or step.shared_memory_bytes or step.is_dependent_launch:
            raise _BrokenRuleError(
                f"grid {step.grid}, block {step.block}, cluster {step.cluster}, "
                f"{step.shared_memory_bytes} B of shared memory and dependent launch "
                f"{step.is_dependent_launch} are not possible on 'cpu': only grid x is used"
            )
    elif step.scratch_bytes_per_worker:
        raise _BrokenRuleError(
            f"scratch per worker is {step.scratch_bytes_per_worker:,} bytes, '{device_kind}' has "
            "no workers"
        )
    _check_range("threads per block", math.prod(step.block), 1, limits.MAX_THREADS_PER_BLOCK)
    _check_range("blocks per cluster", math.prod(step.cluster), 1, limits.MAX_CLUSTER_BLOCKS)
    _check_range("shared memory bytes", step.shared_memory_bytes, 0, limits.MAX_SHARED_MEMORY_BYTES)
    _check_range(
        "scratch bytes per worker", step.scratch_bytes_per_worker, 0, limits.MAX_SCRATCH_BYTES
    )
    _check_optional_us("measured time", step.measured_us)
    _check_optional_us("predicted time", step.predicted_us)
    _check_count("arguments", len(step.arguments), 0, limits.MAX_ARGUMENTS)


def _check_argument(
    position: int, argument: Argument, sizes: list[int], arena_bytes: int, weights_bytes: int
) -> None:
    kind, value, offset = argument.kind, argument.value, argument.offset_bytes
    if kind is ArgumentKind.BINDING:
        if _is_int(value) and 0 <= value < len(sizes) and _is_int(offset):
            if 0 <= offset < sizes[value]:
                return
            raise _BrokenRuleError(
                f"argument {position}: offset {offset:,} lies outside binding {value} with its "
                f"{sizes[value]:,} bytes"
            )
        raise _BrokenRuleError(
            f"argument {position}: binding {value!r} of {len(sizes)} bindings, offset {offset!r}"
        )
    if offset:
        raise _BrokenRuleError(
            f"argument {position}: offset {offset!r} is only for bindings, this is {kind.name}"
        )
    if kind is ArgumentKind.IMMEDIATE:
        _check_range(f"argument {position}: immediate", value, -(1 << 63), (1 << 63) - 1)
        return
    size = arena_bytes if kind is ArgumentKind.ARENA else weights_bytes
    if not _is_int(value) or not 0 <= value < size:
        raise _BrokenRuleError(
            f"argument {position}: byte {value!r} lies outside the {kind.name.lower()} with its "
            f"{size:,} bytes"
        )


def _check_canary(canary: Canary, bindings: tuple[Binding, ...], sizes: list[int]) -> None:
    outputs = [
        (binding, size)
        for binding, size in zip(bindings, sizes, strict=True)
        if not binding.is_input
    ]
    if not len(canary.strides) == len(canary.outputs) == len(outputs):
        raise _BrokenRuleError(
            f"has {len(canary.strides)} strides and {len(canary.outputs)} expected outputs for "
            f"{len(outputs)} output bindings"
        )
    _check_range("seed", canary.seed, 0, (1 << 64) - 1)
    total = 0
    rows = zip(outputs, canary.strides, canary.outputs, strict=True)
    for (binding, size), stride, expected in rows:
        if binding.format not in _DENSE:
            raise _BrokenRuleError(
                f"output '{binding.name}' has format {binding.format.name}, whose padded lanes "
                "are unspecified; a canary needs LINEAR or NHWC outputs"
            )
        _check_range(f"stride of output '{binding.name}'", stride, 1, limits.MAX_TENSOR_BYTES)
        elem_bytes = binding.dtype.size_bytes
        wanted = -(-(size // elem_bytes) // stride) * elem_bytes
        if len(expected) != wanted:
            raise _BrokenRuleError(
                f"output '{binding.name}' has {len(expected):,} expected bytes, stride {stride:,} "
                f"over {size // elem_bytes:,} {binding.dtype.text} elements needs {wanted:,}"
            )
        total += len(expected)
    _check_range("expected bytes", total, 0, limits.MAX_CANARY_BYTES)
    _check_real("absolute tolerance", canary.absolute_tolerance)
    _check_real("relative tolerance", canary.relative_tolerance)
    _check_optional_us("latency", canary.latency_us)


def _check_text(what: str, text: str, max_bytes: int, *, may_be_empty: bool = False) -> None:
    if not isinstance(text, str):
        raise _BrokenRuleError(f"{what} is a {type(text).__name__}, it must be a str")
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _BrokenRuleError(f"{what} {text[:80]!r} is no UTF-8 text: {error.reason}") from None
    if length > max_bytes or (not text and not may_be_empty):
        raise _BrokenRuleError(
            f"{what} has {length:,} bytes, allowed are {int(not may_be_empty)} to {max_bytes:,}"
        )
    if not _CONTROL.isdisjoint(text):
        raise _BrokenRuleError(f"{what} {text[:80]!r} holds a control character")


def _check_mapping(what: str, mapping: Mapping[str, str], max_count: int) -> None:
    _check_count(f"{what} fields", len(mapping), 0, max_count)
    for key, value in mapping.items():
        _check_text(f"key in {what}", key, limits.MAX_NAME_BYTES)
        _check_text(f"{what} '{key}'", value, limits.MAX_TEXT_BYTES, may_be_empty=True)


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise _BrokenRuleError(f"two {what} are named '{name}'; names must differ")
        seen.add(name)


def _check_count(what: str, count: int, low: int, high: int) -> None:
    if not low <= count <= high:
        raise _BrokenRuleError(f"number of {what} is {count:,}, allowed are {low} to {high:,}")


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not _is_int(value):
        raise _BrokenRuleError(f"{what} is {value!r} ({type(value).__name__}), it must be an int")
    if not low <= value <= high:
        raise _BrokenRuleError(f"{what} is {value:,}, allowed are {low:,} to {high:,}")


def _check_index(what: str, value: int, count: int) -> None:
    if not _is_int(value) or not 0 <= value < count:
        raise _BrokenRuleError(f"{what} is {value!r}, there are {count:,}")


def _check_real(what: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise _BrokenRuleError(f"{what} is {value!r}, it must be a finite number, not negative")


def _check_optional_us(what: str, value: float | None) -> None:
    if value is not None:
        _check_real(f"{what} in microseconds", value)


def _is_int(value: object) -> bool:
    return type(value) is int
