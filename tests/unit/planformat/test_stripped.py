"""Stripped plans: the same file comes back, signatures hold, and nothing foreign is accepted."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from support.plans import (
    GOLDEN_KEY,
    patched,
    rehash,
    reseal,
    sample_plan,
    section_index,
    section_range,
    tiny_plan,
)

from boards.store.pieces import plan_edges
from planformat import signing
from planformat.container import ENTRY, HEADER, SectionKind
from planformat.errors import (
    PlanError,
    PlanFormatError,
    PlanSignatureError,
    PlanStrippedError,
)
from planformat.reader import read_container, read_plan
from planformat.stripped import filled_plan, has_weights_of, read_stripped, strip_plan
from planformat.writer import plan_bytes, sign_plan

PUBLIC = signing.public_key_of(GOLDEN_KEY)
WEIGHTS = bytes(sample_plan().weights)
WHOLE = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
STRIPPED = strip_plan(WHOLE)


def test_the_same_weights_give_back_the_same_file():
    assert filled_plan(STRIPPED, WEIGHTS) == WHOLE
    unsigned = plan_bytes(sample_plan())
    assert filled_plan(strip_plan(unsigned), WEIGHTS) == unsigned


def test_a_plan_of_an_older_version_comes_back_with_its_version():
    older = reseal(patched(WHOLE, 10, struct.pack("<H", 0)))
    assert read_container(filled_plan(strip_plan(older), WEIGHTS)).minor == 0


def test_nothing_of_the_weights_is_left():
    assert len(STRIPPED) < len(WHOLE)
    assert WEIGHTS[:64] not in STRIPPED
    assert WEIGHTS[4096:4160] not in STRIPPED


def test_all_but_the_weights_can_be_read():
    stripped = read_stripped(STRIPPED)
    assert stripped.plan == replace(sample_plan(), weights=b"")
    assert stripped.weights_bytes == len(WEIGHTS)
    assert stripped.whole_head == read_container(WHOLE).head
    assert has_weights_of(stripped, WEIGHTS)
    assert not has_weights_of(stripped, WEIGHTS[:-1] + b"!")
    assert not has_weights_of(stripped, WEIGHTS[:-1])


def test_it_is_refused_wherever_a_plan_is_run_signed_or_sent():
    with pytest.raises(PlanStrippedError, match=r"edgeplan refit x\.plan MODEL -o OUT\.plan"):
        read_plan(STRIPPED, source="x.plan")
    with pytest.raises(PlanStrippedError):
        sign_plan(STRIPPED, GOLDEN_KEY)
    with pytest.raises(PlanStrippedError):
        strip_plan(STRIPPED)
    with pytest.raises(PlanStrippedError):
        plan_edges(memoryview(STRIPPED), "x.plan")


def test_the_signature_of_the_whole_plan_is_checked_without_its_weights():
    assert read_stripped(STRIPPED, public_key=PUBLIC)
    with pytest.raises(PlanSignatureError, match="signed with key"):
        read_stripped(STRIPPED, public_key=signing.public_key_of(bytes(32)))
    with pytest.raises(PlanSignatureError, match="a signature is required but the plan has none"):
        read_stripped(strip_plan(plan_bytes(sample_plan())), public_key=PUBLIC)
    # Another manifest, with every hash made right: only the signature can tell.
    begin, end = section_range(STRIPPED, SectionKind.MANIFEST)
    manifest = STRIPPED[begin:end].replace(b"sample.onnx", b"simple.onnx")
    forged = rehash(patched(STRIPPED, begin, manifest), SectionKind.MANIFEST)
    with pytest.raises(PlanFormatError, match="is not the header and table of this plan"):
        read_stripped(forged)
    digest_at = HEADER.size + section_index(STRIPPED, SectionKind.MANIFEST) * ENTRY.size + 32
    head_begin, head_end = section_range(STRIPPED, SectionKind.WHOLE_HEAD)
    digest = forged[digest_at : digest_at + 32]
    head = reseal(patched(STRIPPED[head_begin:head_end], digest_at, digest))
    forged = rehash(patched(forged, head_begin, head), SectionKind.WHOLE_HEAD)
    assert read_stripped(forged).plan.provenance["model"] == "simple.onnx"
    with pytest.raises(PlanSignatureError, match="the signature does not fit"):
        read_stripped(forged, public_key=PUBLIC)


def test_other_weights_are_refused():
    with pytest.raises(PlanError, match="these 5,000 bytes are not the 5,000 bytes of weights"):
        filled_plan(STRIPPED, bytes(5000))


def test_plans_that_cannot_be_stripped_or_are_not():
    with pytest.raises(PlanError, match="has no weights that could be stripped"):
        strip_plan(plan_bytes(tiny_plan()))
    with pytest.raises(PlanError, match="has its weights, it is not stripped"):
        read_stripped(WHOLE)


def test_the_bit_and_the_sections_must_agree():
    whole_with_bit = reseal(patched(WHOLE, 24, struct.pack("<Q", 1)))
    with pytest.raises(PlanFormatError, match="said to be stripped, but"):
        read_plan(whole_with_bit)
    stripped_without = reseal(patched(STRIPPED, 24, struct.pack("<Q", 0)))
    with pytest.raises(PlanFormatError, match="belongs to plans whose weights were stripped"):
        read_plan(stripped_without)


@pytest.mark.parametrize("value", [0, 1, 4096, 1 << 40, (1 << 40) + 1, (1 << 64) - 1])
def test_a_hostile_size_of_the_weights(value):
    begin, end = section_range(STRIPPED, SectionKind.WHOLE_HEAD)
    head = STRIPPED[begin:end]
    at = HEADER.size + section_index(WHOLE, SectionKind.WEIGHTS) * ENTRY.size + 16
    changed = reseal(patched(head, at, struct.pack("<Q", value)))
    with pytest.raises(PlanFormatError):
        read_stripped(rehash(patched(STRIPPED, begin, changed), SectionKind.WHOLE_HEAD))


def test_truncated_and_flipped():
    for length in range(0, len(STRIPPED), 7):
        with pytest.raises(PlanFormatError):
            read_stripped(STRIPPED[:length])
    data = bytearray(STRIPPED)
    for at in range(len(data)):
        data[at] ^= 1 << (at % 8)
        with pytest.raises(PlanError):
            read_stripped(data)
        data[at] ^= 1 << (at % 8)
