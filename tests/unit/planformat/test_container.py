"""Header and section table: every rule of SPEC.md sections 2 and 3 has its rejection."""

from __future__ import annotations

import hashlib
import struct

import pytest
from support.plans import (
    patched,
    rehash,
    reseal,
    sample_plan,
    section_index,
    section_range,
    tiny_plan,
)

from planformat.container import ENTRY, HEADER, SectionEntry, SectionKind, encode_head
from planformat.errors import PlanError, PlanFormatError, PlanVersionError
from planformat.reader import read_container, read_plan
from planformat.writer import plan_bytes

TINY = plan_bytes(tiny_plan())
SAMPLE = plan_bytes(sample_plan())
NUMBERS = {"H": (0, 1, 2, 0x7FFF, 0xFFFF), "I": (0, 1, 2, 3, 127, 1 << 31, (1 << 32) - 1)}
NUMBERS["Q"] = (0, 1, 64, 129, 4096, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)

HEADER_FIELDS = {
    "magic": (0, "Q"),
    "major": (8, "H"),
    "header length": (12, "I"),
    "file length": (16, "Q"),
    "required features": (24, "Q"),
    "table offset": (40, "Q"),
    "number of sections": (48, "I"),
    "entry length": (52, "I"),
    "code zone offset": (56, "Q"),
    "reserved": (64, "Q"),
    "head hash": (96, "Q"),
}
ENTRY_FIELDS = {
    "kind": (0, "I"),
    "flags": (4, "I"),
    "offset": (8, "Q"),
    "length": (16, "Q"),
    "alignment": (24, "I"),
    "reserved": (28, "I"),
    "hash": (32, "Q"),
}


def field(offset: int, value: int, code: str, data: bytes = TINY, *, seal: bool = True) -> bytes:
    changed = patched(data, offset, struct.pack("<" + code, value))
    return reseal(changed) if seal else changed


@pytest.mark.parametrize("name", HEADER_FIELDS)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_corrupt_header_field(name, is_sealed):
    offset, code = HEADER_FIELDS[name]
    (right,) = struct.unpack_from("<" + code, SAMPLE, offset)
    for value in NUMBERS[code]:
        if value == right:
            continue
        changed = field(offset, value, code, SAMPLE)
        if name in ("number of sections", "head hash") or not is_sealed:
            changed = field(offset, value, code, SAMPLE, seal=False)
        with pytest.raises(PlanError, match=r"^plan p\.plan: (header|section)"):
            read_plan(changed, source="p.plan")


@pytest.mark.parametrize("name", ENTRY_FIELDS)
@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize("index", range(7))
def test_corrupt_entry_field(name, is_sealed, index):
    offset, code = ENTRY_FIELDS[name]
    offset += HEADER.size + index * ENTRY.size
    (right,) = struct.unpack_from("<" + code, SAMPLE, offset)
    for value in NUMBERS[code]:
        is_harmless = name == "alignment" and is_same_layout(index, value)
        if index == section_index(SAMPLE, SectionKind.DETAILS) and name == "kind":
            is_harmless = SectionKind.DETAILS < value < SectionKind.CODE  # unknown and ignorable
        if value == right or (is_sealed and is_harmless):
            continue
        with pytest.raises(PlanError, match=r"^plan p\.plan: (header|section)"):
            read_plan(field(offset, value, code, SAMPLE, seal=is_sealed), source="p.plan")


def is_same_layout(index: int, alignment: int) -> bool:
    """Whether the alignment is legal and puts the section where it is."""
    at = HEADER.size + index * ENTRY.size
    offset, _ = struct.unpack_from("<QQ", SAMPLE, at + 8)
    end = HEADER.size + 7 * ENTRY.size
    if index:
        end = sum(struct.unpack_from("<QQ", SAMPLE, at - ENTRY.size + 8))
    is_legal = alignment in [1 << bit for bit in range(17)]
    is_weights = index == section_index(SAMPLE, SectionKind.WEIGHTS)
    return is_legal and not is_weights and -(-end // alignment) * alignment == offset


def test_text_mode_transfer_is_recognised():
    with pytest.raises(PlanFormatError, match="line ends were converted"):
        read_plan(TINY.replace(b"\r\n", b"\n", 1))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 127])
def test_shorter_than_a_header(length):
    with pytest.raises(PlanFormatError, match="header"):
        read_plan(TINY[:length])


def test_cut_short_and_extended():
    with pytest.raises(PlanFormatError, match="it was cut short"):
        read_plan(SAMPLE[:-1])
    with pytest.raises(PlanFormatError, match="bytes were appended"):
        read_plan(SAMPLE + b"\0")


def test_other_major_version_is_named():
    with pytest.raises(PlanVersionError, match=r"format version is 2\.7, this reader knows 1\.x"):
        read_plan(patched(TINY, 8, b"\x02\0\x07\0"))


def test_newer_minor_version_is_read():
    newer = reseal(patched(TINY, 10, b"\x09\0"))
    assert read_plan(newer) == tiny_plan()
    with_reserved = reseal(patched(newer, 64, b"\x01"))
    assert read_plan(with_reserved) == tiny_plan()


def test_optional_features_are_ignored_and_required_ones_not():
    assert read_plan(field(32, 1 << 63, "Q")) == tiny_plan()
    assert read_container(field(32, 5, "Q")).optional_features == 5
    with pytest.raises(PlanVersionError, match="required features 0x8000000000000000"):
        read_plan(field(24, 1 << 63, "Q"))


def test_huge_section_count():
    with pytest.raises(PlanFormatError, match=r"4,294,967,295 sections, allowed are 1 to 4,096"):
        read_plan(field(48, (1 << 32) - 1, "I", seal=False))
    with pytest.raises(PlanFormatError, match=r"table of 4,096 sections ends at byte 262,272"):
        read_plan(field(48, 4096, "I", seal=False))


def parts(data: bytes) -> list[tuple[SectionEntry, bytes]]:
    return [(e, data[e.offset : e.end]) for e in read_container(data).entries]


def joined(rows: list[tuple[SectionEntry, bytes]], gap: int = 0, pad: bytes = b"\0") -> bytes:
    """A file of sections as they are, at offsets that leave `gap` bytes too many between them."""
    end = HEADER.size + len(rows) * ENTRY.size
    entries, body = [], b""
    for entry, content in rows:
        offset = -(-end // entry.alignment) * entry.alignment + gap
        body += pad * (offset - end) + content
        entries.append(
            SectionEntry(
                entry.kind, entry.flags, offset, len(content), entry.alignment, entry.sha256
            )
        )
        end = offset + len(content)
    return encode_head(entries) + body


def test_joined_sections_are_the_plan():
    assert joined(parts(SAMPLE)) == SAMPLE


def test_hole_between_sections():
    with pytest.raises(PlanFormatError, match="leaves a hole"):
        read_plan(joined(parts(SAMPLE), gap=4096))


def test_padding_that_is_not_zero():
    with pytest.raises(PlanFormatError, match=r"the padding before it, bytes .* is not zero"):
        read_plan(joined(parts(SAMPLE), pad=b"x"))


def test_overlapping_sections():
    at = HEADER.size + section_index(SAMPLE, SectionKind.WEIGHTS) * ENTRY.size
    for offset in (0, 64, section_range(SAMPLE, SectionKind.CHUNKS)[0]):
        with pytest.raises(PlanFormatError, match=r"section 'weights' .*overlaps"):
            read_plan(field(at + 8, offset, "Q", SAMPLE))


def test_section_past_the_end():
    at = HEADER.size + 5 * ENTRY.size
    for length in (6000, 1 << 40, (1 << 64) - 1):
        with pytest.raises(PlanFormatError, match=r"section 'code' .* but the file has 20,4"):
            read_plan(field(at + 16, length, "Q", SAMPLE))


def test_sections_out_of_order():
    rows = parts(SAMPLE)
    with pytest.raises(PlanFormatError, match="kinds must ascend"):
        read_plan(joined([rows[1], rows[0], *rows[2:]]))
    with pytest.raises(PlanFormatError, match="only code sections repeat"):
        read_plan(joined([rows[0], *rows]))


def test_missing_sections():
    rows = parts(SAMPLE)
    with pytest.raises(PlanFormatError, match="first section is 'chunks', it must be 'manifest'"):
        read_plan(joined(rows[1:]))
    for index in (1, 2):
        with pytest.raises(PlanFormatError, match="must come together"):
            read_plan(joined(rows[:index] + rows[index + 1 :]))
    with pytest.raises(PlanFormatError, match=r"section 'manifest', byte .* code section 2"):
        read_plan(joined(rows[:-1]))
    with pytest.raises(PlanFormatError, match="code section 3 belongs to no code object"):
        read_plan(joined([*rows, rows[-1]]))


def test_section_of_an_unknown_kind():
    content = b"from the future"
    digest = hashlib.sha256(content).digest()
    rows = parts(SAMPLE)
    new = SectionEntry(0x50, 2, 0, 0, 8, digest)
    with_new = joined([*rows[:4], (new, content), (new, content), *rows[4:]])
    assert read_plan(with_new) == sample_plan()
    needed = joined([*rows[:4], (SectionEntry(0x50, 0, 0, 0, 8, digest), content), *rows[4:]])
    with pytest.raises(PlanVersionError, match=r"entry 4 \('kind 0x50'\).* update edgeplan"):
        read_plan(needed)
    with pytest.raises(PlanFormatError, match=r"section 'kind 0x50'.* SHA-256"):
        read_plan(with_new.replace(content, b"from the patches"[:15], 1))
    in_code_zone = SectionEntry(0x50, 3, 0, 0, 8, digest)
    with pytest.raises(PlanFormatError, match="wrong zone"):
        read_plan(joined([*rows, (in_code_zone, content)]))


def test_known_section_marked_ignorable():
    with pytest.raises(PlanFormatError, match="may not be ignored"):
        read_plan(field(HEADER.size + 4, 2, "I"))


def test_weights_must_stay_page_aligned():
    rows = parts(SAMPLE)
    entry, content = rows[2]
    loose = SectionEntry(entry.kind, 0, 0, 0, 64, entry.sha256)
    with pytest.raises(PlanFormatError, match="alignment 64, must have at least 4096"):
        read_plan(joined([*rows[:2], (loose, content), *rows[3:]]))


@pytest.mark.parametrize("kind", [SectionKind.MANIFEST, SectionKind.CHUNKS, SectionKind.CODE])
def test_changed_section(kind):
    begin, end = section_range(SAMPLE, kind)
    for at in (begin, end - 1):
        with pytest.raises(PlanFormatError, match=f"section '{kind.name.lower()}', bytes"):
            read_plan(patched(SAMPLE, at, bytes([SAMPLE[at] ^ 1])))


@pytest.mark.parametrize(
    ("offset", "code", "value", "message"),
    [
        (0, "I", 0, "0 chunks"),
        (0, "I", 3, "3 chunks need 136 bytes, the section has 96"),
        (0, "I", (1 << 32) - 1, "4,294,967,295 chunks"),
        (4, "I", 1, "reserved"),
        (8, "Q", 1, "reserved"),
        (16, "Q", 4095, "chunk 0 has 4,095 bytes"),
        (16, "Q", 0, "chunk 0 has 0 bytes"),
        (16, "Q", 8192, "chunks sum to 9,096 bytes, section 'weights' has 5,000"),
        (56, "Q", (1 << 64) - 1, "chunks sum to"),
        (24, "Q", 5, "section 'weights'.*SHA-256"),
    ],
)
def test_changed_chunk_table(offset, code, value, message):
    begin, _ = section_range(SAMPLE, SectionKind.CHUNKS)
    changed = rehash(field(begin + offset, value, code, SAMPLE), SectionKind.CHUNKS)
    with pytest.raises(PlanFormatError, match=message):
        read_plan(changed)


def test_changed_weights_name_the_chunk():
    begin, end = section_range(SAMPLE, SectionKind.WEIGHTS)
    with pytest.raises(PlanFormatError, match=rf"chunk 1, bytes {begin + 4096:,} to {end:,}"):
        read_plan(patched(SAMPLE, end - 1, b"\xff"))
