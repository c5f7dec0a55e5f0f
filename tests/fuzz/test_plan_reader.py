"""Whatever is done to a plan's bytes, reading gives a PlanError or a plan, within bounds."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.plan_strategies import plans
from support.plans import (
    GOLDEN_KEY,
    patched,
    rehash,
    reseal,
    sample_plan,
    section_range,
    tiny_plan,
    with_manifest,
)

from planformat import signing
from planformat.container import SectionKind
from planformat.details import plan_details
from planformat.errors import PlanError, PlanFormatError
from planformat.manifest_messages import message_class
from planformat.plan import Plan
from planformat.reader import read_plan
from planformat.stripped import filled_plan, read_stripped, strip_plan
from planformat.writer import plan_bytes

SIGNED = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
PUBLIC = signing.public_key_of(GOLDEN_KEY)
DETAILS = bytes(sample_plan().details)
STRIPPED = strip_plan(SIGNED)
WEIGHTS = bytes(sample_plan().weights)
MANIFEST = SIGNED[slice(*section_range(SIGNED, SectionKind.MANIFEST))]

FIXED_BYTES = 1 << 18
"""Allowance for what does not depend on the input: interned names, error texts, code of modules."""

FACTOR = 100
"""Most bytes allocated per byte of manifest that SPEC.md section 7 states."""


def read_or_refuse(data: bytes) -> Plan | None:
    """The plan, or None when it is refused; any other exception fails the test."""
    try:
        return read_plan(data)
    except PlanError:
        return None


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans(), st.booleans())
def test_round_trip(plan, is_signed):
    data = plan_bytes(plan, signing_key=GOLDEN_KEY if is_signed else None)
    read = read_plan(data, public_key=PUBLIC if is_signed else None)
    assert read == plan
    assert plan_bytes(read, signing_key=GOLDEN_KEY if is_signed else None) == data
    weights = bytes(plan.weights)
    if weights:
        stripped = strip_plan(data)
        assert read_stripped(stripped).plan == replace(plan, weights=b"")
        assert filled_plan(stripped, weights) == data


def test_truncated_at_every_byte():
    for length in range(len(SIGNED)):
        with pytest.raises(PlanFormatError):
            read_plan(SIGNED[:length])


def test_truncated_at_every_byte_with_the_length_made_right():
    lengths = [*range(128, 5000), *range(5000, len(SIGNED), 13)]
    for length in lengths:
        data = patched(SIGNED[:length], 16, struct.pack("<Q", length))
        if length >= 1000:
            data = reseal(data)
        with pytest.raises(PlanFormatError):
            read_plan(data)


def test_flipped_bit_in_every_byte():
    data = bytearray(SIGNED)
    for at in range(len(data)):
        data[at] ^= 1 << (at % 8)
        with pytest.raises(PlanError):
            read_plan(data)
        data[at] ^= 1 << (at % 8)
    assert read_plan(data) == sample_plan()


def test_every_value_of_every_byte_of_a_small_manifest():
    tiny = plan_bytes(tiny_plan())
    begin, end = section_range(tiny, SectionKind.MANIFEST)
    manifest = bytearray(tiny[begin:end])
    for at in range(len(manifest)):
        right = manifest[at]
        for value in (0, 1, 2, 0x7F, 0x80, 0xFF, right ^ 1, right ^ 8, right ^ 0x40):
            manifest[at] = value
            read_or_refuse(with_manifest(tiny, bytes(manifest)))
        manifest[at] = right


def test_manifest_truncated_at_every_byte_with_right_hashes():
    tiny = plan_bytes(tiny_plan())
    for length in range(1, len(MANIFEST)):
        read_or_refuse(with_manifest(tiny, MANIFEST[:length]))


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "copy"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=10),
    ),
    min_size=1,
    max_size=6,
)


def mutate(data: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    """Apply changes whose places are fractions of the length."""
    for kind, first, second, new in changes:
        at, to = int(first * len(data)), int(second * len(data))
        if kind == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        else:
            data = data[:at] + data[to : to + 40] + data[at:]
    return data


@settings(max_examples=400, deadline=None)
@given(mutations)
def test_mutated_manifest_with_right_hashes(changes):
    read_or_refuse(with_manifest(SIGNED, mutate(MANIFEST, changes) or b"\0"))


@settings(max_examples=400, deadline=None)
@given(mutations)
def test_mutated_manifest_of_the_same_length_in_its_plan(changes):
    begin, end = section_range(SIGNED, SectionKind.MANIFEST)
    manifest = (mutate(MANIFEST, changes) + MANIFEST)[: end - begin]
    plan = read_or_refuse(rehash(patched(SIGNED, begin, manifest), SectionKind.MANIFEST))
    if plan is not None:
        assert read_plan(plan_bytes(plan)) == plan


@settings(max_examples=400, deadline=None)
@given(mutations)
def test_mutated_details(changes):
    plan = replace(sample_plan(), details=mutate(DETAILS, changes))
    read = read_plan(plan_bytes(plan))
    with contextlib.suppress(PlanFormatError):
        plan_details(read)


@settings(max_examples=300, deadline=None)
@given(mutations)
def test_mutated_head(changes):
    head = mutate(SIGNED[:640], changes)
    data = (head + SIGNED[640:])[: len(SIGNED)]
    count = struct.unpack_from("<I", data, 48)[0]
    read_or_refuse(reseal(data) if 0 < count < 20 else data)


def stripped_or_refused(data: bytes) -> None:
    """Read a stripped plan and fill it; any other exception than PlanError fails the test."""
    with contextlib.suppress(PlanError):
        read_stripped(data, public_key=PUBLIC)
    with contextlib.suppress(PlanError):
        filled_plan(data, WEIGHTS)


@settings(max_examples=300, deadline=None)
@given(mutations)
def test_mutated_head_of_a_stripped_plan(changes):
    data = (mutate(STRIPPED[:640], changes) + STRIPPED[640:])[: len(STRIPPED)]
    count = struct.unpack_from("<I", data, 48)[0]
    stripped_or_refused(reseal(data) if 0 < count < 20 else data)


@pytest.mark.parametrize("kind", [SectionKind.WHOLE_HEAD, SectionKind.CHUNKS])
@settings(max_examples=300, deadline=None)
@given(changes=mutations)
def test_mutated_sections_of_a_stripped_plan(kind, changes):
    begin, end = section_range(STRIPPED, kind)
    content = mutate(STRIPPED[begin:end], changes)[: end - begin]
    stripped_or_refused(rehash(patched(STRIPPED, begin, content), kind))


def test_huge_numbers_in_the_whole_head_allocate_nothing():
    begin, end = section_range(STRIPPED, SectionKind.WHOLE_HEAD)
    for at in range(begin, end - 8, 8):
        for value in (1 << 32, (1 << 40) - 4096, (1 << 64) - 1):
            changed = patched(STRIPPED, at, struct.pack("<Q", value))
            data = rehash(changed, SectionKind.WHOLE_HEAD)
            tracemalloc.start()
            try:
                stripped_or_refused(data)
                assert tracemalloc.get_traced_memory()[1] < FIXED_BYTES + FACTOR * len(data)
            finally:
                tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    assert read_or_refuse(data) is None
    read_or_refuse(with_manifest(SIGNED, data or b"\0"))


def peak_bytes(data: bytes) -> int:
    """Most bytes that reading allocates at a time, beside the data."""
    read_or_refuse(plan_bytes(tiny_plan()))
    tracemalloc.start()
    try:
        read_or_refuse(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def nested(*tags: bytes, content: bytes) -> bytes:
    """Content wrapped in messages: the last tag is the innermost."""
    for tag in reversed(tags):
        length, digits = len(content), b""
        while length >= 0x80:
            digits, length = digits + bytes([length & 0x7F | 0x80]), length >> 7
        content = tag + digits + bytes([length]) + content
    return content


STEP = b"\x0a\x01s\x1a\x03\x01\x01\x01"
GREEDY = {
    "empty fields": b"\x0a\x00" * 100_000,
    "empty bindings": b"\x12\x00" * 100_000,
    "bindings": b"\x12\x04\x18\x01\x20\x01" * 50_000,
    "empty variants": b"\x1a\x00" * 100_000,
    "provenance": b"\x22\x00" * 100_000,
    "many keys": b"".join(b"\x22\x03\x0a\x01" + bytes([32 + i % 90]) for i in range(50_000)),
    "kernels": nested(b"\x1a", content=b"\x22\x00" * 20_000),
    "profiles": nested(b"\x1a", content=b"\x2a\x00" * 65_536),
    "steps": nested(b"\x1a", b"\x2a", content=nested(b"\x1a", content=STEP) * 10_000),
    "empty steps": nested(b"\x1a", b"\x2a", content=b"\x1a\x00" * 65_536),
    "shapes": nested(b"\x1a", b"\x2a", content=b"\x12\x00" * 65_536),
    "dims": nested(b"\x1a", b"\x2a", b"\x12", b"\x0a", content=b"\x7f" * 200_000),
    "arguments": nested(b"\x1a", b"\x2a", b"\x1a", content=b"\x32\x02\x08\x01" * 65_536),
    "steps of arguments": nested(
        b"\x1a", b"\x2a", content=nested(b"\x1a", content=STEP + b"\x32\x02\x08\x04" * 20) * 800
    ),
    "strides": nested(b"\x1a", b"\x2a", b"\x3a", b"\x12", content=b"\x7f" * 200_000),
    "outputs": nested(b"\x1a", b"\x2a", b"\x3a", content=b"\x1a\x00" * 100_000),
    "one long text": nested(b"\x0a", content=b"a" * 1_000_000),
    "one long length": b"\x0a\xff\xff\xff\xff\x7f" + b"a" * 1000,
}


@pytest.mark.parametrize("name", GREEDY)
def test_hostile_manifest_allocates_in_proportion(name):
    data = with_manifest(SIGNED, GREEDY[name])
    assert peak_bytes(data) < FIXED_BYTES + FACTOR * len(data)


@pytest.mark.parametrize("field", [(16, "Q"), (48, "I"), (52, "I"), (40, "Q"), (12, "I")])
def test_huge_numbers_in_the_head_allocate_nothing(field):
    offset, code = field
    for value in (1 << 31, (1 << 32) - 1):
        data = patched(SIGNED, offset, struct.pack("<" + code, value))
        assert peak_bytes(data) < FIXED_BYTES


def test_huge_lengths_in_the_table_allocate_nothing():
    for row in range(7):
        for offset in (8, 16):
            at = 128 + 64 * row + offset
            for value in (1 << 32, 1 << 63, (1 << 64) - 1):
                data = reseal(patched(SIGNED, at, struct.pack("<Q", value)))
                assert peak_bytes(data) < FIXED_BYTES


def test_huge_chunk_counts_allocate_nothing():
    begin, _ = section_range(SIGNED, SectionKind.CHUNKS)
    data = rehash(patched(SIGNED, begin, b"\xff\xff\xff\xff"), SectionKind.CHUNKS)
    assert peak_bytes(data) < FIXED_BYTES


def test_reading_does_not_copy_weights():
    plan = sample_plan()
    weights = bytes(8 << 20)
    big = Plan(plan.name, plan.bindings, plan.variants, weights, (len(weights),))
    data = plan_bytes(big)
    assert peak_bytes(data) < FIXED_BYTES


def test_protobuf_agrees_on_what_the_decoder_accepts():
    tiny = plan_bytes(tiny_plan())
    manifest = message_class("Manifest")
    for length in range(1, len(MANIFEST)):
        plan = read_or_refuse(with_manifest(tiny, MANIFEST[:length]))
        if plan is not None:
            assert manifest.FromString(MANIFEST[:length]).name == plan.name
