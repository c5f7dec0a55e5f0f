"""Header and section table: where everything in a PLAN file lies (SPEC.md sections 2 and 3)."""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

from planformat import limits
from planformat.errors import PlanFormatError, PlanVersionError
from planformat.version import (
    COMPLETE_MINOR,
    FEATURE_STRIPPED,
    KNOWN_REQUIRED_FEATURES,
    MAGIC,
    VERSION_MAJOR,
    VERSION_MINOR,
)

HEADER = struct.Struct("<8sHHIQQQQIIQ32s32s")
"""magic, major, minor, header length, file length, required features, optional features, table
offset, number of sections, entry length, code zone offset, reserved, head SHA-256."""

ENTRY = struct.Struct("<IIQQII32s")
"""kind, flags, offset, length, alignment, reserved, SHA-256."""

HEAD_HASH_OFFSET = HEADER.size - 32
ZERO_HASH = bytes(32)


class SectionKind(enum.IntEnum):
    """Kinds of section; those from CODE on lie in the code zone."""

    MANIFEST = 1
    CHUNKS = 2
    SIGNATURE = 3
    WEIGHTS = 4
    DETAILS = 5
    WHOLE_HEAD = 6
    CODE = 0x100


FIRST_CODE_ZONE_KIND = 0x100
_KNOWN_KINDS = frozenset(SectionKind)
_SINGLE_KINDS = _KNOWN_KINDS - {SectionKind.CODE}
_IGNORABLE_KINDS = frozenset({SectionKind.DETAILS})


FLAG_CODE_ZONE = 1
FLAG_MAY_IGNORE = 2
_KNOWN_FLAGS = FLAG_CODE_ZONE | FLAG_MAY_IGNORE


class SectionEntry(NamedTuple):
    """One row of the section table. offset and length are bytes of the file."""

    kind: int
    flags: int
    offset: int
    length: int
    alignment: int
    sha256: bytes

    @property
    def end(self) -> int:
        """Byte after the last one."""
        return self.offset + self.length

    @property
    def name(self) -> str:
        """Name used in messages."""
        return section_name(self.kind)


class Container(NamedTuple):
    """A checked header and section table.

    head: the bytes of header and table, which the signature covers.
    """

    minor: int
    required_features: int
    optional_features: int
    code_zone_offset: int
    entries: tuple[SectionEntry, ...]
    head: bytes

    @property
    def is_stripped(self) -> bool:
        """Whether the weights were taken out (SPEC.md section 11)."""
        return bool(self.required_features & FEATURE_STRIPPED)

    def find(self, kind: SectionKind) -> SectionEntry | None:
        """The first section of a kind, or None."""
        return next((entry for entry in self.entries if entry.kind == kind), None)


def section_name(kind: int) -> str:
    """Name of a section kind for messages, e.g. `weights`."""
    try:
        return SectionKind(kind).name.lower()
    except ValueError:
        return f"kind {kind:#x}"


def align_up(value: int, alignment: int) -> int:
    """Smallest multiple of alignment that is not below value."""
    return -(-value // alignment) * alignment


def encode_head(
    entries: Sequence[SectionEntry],
    *,
    minor: int = COMPLETE_MINOR,
    required_features: int = 0,
    optional_features: int = 0,
) -> bytes:
    """Bytes of header and section table for sections that are already laid out."""
    file_length = entries[-1].end
    code_offsets = [entry.offset for entry in entries if entry.flags & FLAG_CODE_ZONE]
    header = HEADER.pack(
        MAGIC,
        VERSION_MAJOR,
        minor,
        HEADER.size,
        file_length,
        required_features,
        optional_features,
        HEADER.size,
        len(entries),
        ENTRY.size,
        code_offsets[0] if code_offsets else file_length,
        ZERO_HASH,
        ZERO_HASH,
    )
    table = b"".join(
        ENTRY.pack(e.kind, e.flags, e.offset, e.length, e.alignment, 0, e.sha256) for e in entries
    )
    return seal_head(header + table)


def seal_head(head: bytes) -> bytes:
    """The same header and table with the head SHA-256 computed anew."""
    return head[:HEAD_HASH_OFFSET] + head_hash(head) + head[HEADER.size :]


def head_hash(head: bytes) -> bytes:
    """SHA-256 of header and table in which the hash itself counts as 32 zero bytes."""
    digest = hashlib.sha256(head[:HEAD_HASH_OFFSET])
    digest.update(ZERO_HASH)
    digest.update(head[HEADER.size :])
    return digest.digest()


def parse_container(view: memoryview, source: str) -> Container:
    """Read and check header, table, zones and padding; no section's content is looked at.

    Args:
        view: the whole file, one byte per item.
        source: name of the plan for messages.

    Raises:
        PlanFormatError: a rule of SPEC.md sections 2 and 3 is broken.
        PlanVersionError: another major version, or a required feature that is not known.
    """
    where = f"plan {source}: header"
    size = len(view)
    if bytes(view[: len(MAGIC)]) != MAGIC[:size]:
        hint = "this is not a PLAN file"
        if bytes(view[:6]) == MAGIC[:6]:
            hint = "line ends were converted on the way: transfer it as a binary file"
        raise PlanFormatError(
            f"{where}, byte 0: magic is {bytes(view[:8]).hex()}, expected {MAGIC.hex()}; {hint}"
        )
    if size < HEADER.size:
        raise PlanFormatError(
            f"{where}: needs {HEADER.size} bytes but the file has {size:,} bytes; "
            "it was cut short: fetch it again"
        )
    (
        _,
        major,
        minor,
        header_length,
        file_length,
        required_features,
        optional_features,
        table_offset,
        num_sections,
        entry_length,
        code_zone_offset,
        reserved,
        stored_hash,
    ) = HEADER.unpack_from(view)
    if major != VERSION_MAJOR:
        raise PlanVersionError(
            f"{where}, byte 8: format version is {major}.{minor}, this reader knows "
            f"{VERSION_MAJOR}.x; update edgeplan on this device or rebuild the plan"
        )
    if file_length != size:
        reason = "it was cut short" if file_length > size else "bytes were appended to it"
        raise PlanFormatError(
            f"{where}, byte 16: file length is {file_length:,} bytes but the file has {size:,} "
            f"bytes; {reason}: fetch it again"
        )
    expected_fields = (
        (12, "header length", header_length, HEADER.size),
        (40, "table offset", table_offset, HEADER.size),
        (52, "entry length", entry_length, ENTRY.size),
    )
    for offset, name, value, expected in expected_fields:
        if value != expected:
            raise PlanFormatError(f"{where}, byte {offset}: {name} is {value:,}, not {expected}")
    if not 1 <= num_sections <= limits.MAX_SECTIONS:
        raise PlanFormatError(
            f"{where}, byte 48: {num_sections:,} sections, allowed are 1 to {limits.MAX_SECTIONS:,}"
        )
    head_length = HEADER.size + num_sections * ENTRY.size
    if head_length > size:
        raise PlanFormatError(
            f"{where}, byte 48: the table of {num_sections:,} sections ends at byte "
            f"{head_length:,} but the file has {size:,} bytes"
        )
    if size > limits.MAX_FILE_BYTES:
        raise PlanFormatError(
            f"{where}, byte 16: file length is {size:,} bytes, allowed are "
            f"{limits.MAX_FILE_BYTES:,}"
        )
    head = bytes(view[:head_length])
    actual_hash = head_hash(head)
    if actual_hash != stored_hash:
        raise PlanFormatError(
            f"{where}, byte {HEAD_HASH_OFFSET}: SHA-256 of header and table is "
            f"{actual_hash.hex()}, stored is {stored_hash.hex()}; header or table were changed: "
            "fetch the plan again"
        )
    unknown = required_features & ~KNOWN_REQUIRED_FEATURES
    if unknown:
        raise PlanVersionError(
            f"{where}, byte 24: required features {unknown:#x} are not known to this reader "
            f"(format {VERSION_MAJOR}.{VERSION_MINOR}, plan {major}.{minor}); update edgeplan "
            "on this device"
        )
    if minor <= VERSION_MINOR and reserved != ZERO_HASH:
        raise PlanFormatError(f"{where}, byte 64: reserved bytes are {reserved.hex()}, not zero")
    entries = tuple(
        _parse_entry(head, HEADER.size + i * ENTRY.size, i, source) for i in range(num_sections)
    )
    _check_layout(view, entries, head_length, code_zone_offset, source)
    container = Container(
        minor, required_features, optional_features, code_zone_offset, entries, head
    )
    _check_company(container, source)
    return container


def _parse_entry(head: bytes, at: int, index: int, source: str) -> SectionEntry:
    kind, flags, offset, length, alignment, reserved, sha256 = ENTRY.unpack_from(head, at)
    where = f"plan {source}: section table entry {index} ('{section_name(kind)}')"
    if flags & ~_KNOWN_FLAGS:
        raise PlanVersionError(f"{where}, byte {at + 4}: flags {flags:#x} are not known")
    is_known = kind in _KNOWN_KINDS
    if is_known and bool(flags & FLAG_MAY_IGNORE) != (kind in _IGNORABLE_KINDS):
        raise PlanFormatError(
            f"{where}, byte {at + 4}: flags {flags:#x} are wrong, this kind "
            f"{'may' if kind in _IGNORABLE_KINDS else 'may not'} be ignored"
        )
    if not is_known and not flags & FLAG_MAY_IGNORE:
        raise PlanVersionError(
            f"{where}, byte {at}: this reader (format {VERSION_MAJOR}.{VERSION_MINOR}) does not "
            "know this kind and the plan needs it; update edgeplan on this device"
        )
    if bool(flags & FLAG_CODE_ZONE) != (kind >= FIRST_CODE_ZONE_KIND):
        raise PlanFormatError(
            f"{where}, byte {at + 4}: flags {flags:#x} put it into the wrong zone for its kind"
        )
    if not 1 <= alignment <= limits.MAX_ALIGNMENT_BYTES or alignment & (alignment - 1):
        raise PlanFormatError(
            f"{where}, byte {at + 24}: alignment is {alignment:,} bytes, allowed are powers of "
            f"two up to {limits.MAX_ALIGNMENT_BYTES:,}"
        )
    if reserved:
        raise PlanFormatError(f"{where}, byte {at + 28}: reserved field is {reserved}, not 0")
    if kind == SectionKind.SIGNATURE and sha256 != ZERO_HASH:
        raise PlanFormatError(
            f"{where}, byte {at + 32}: the hash of this kind must be zero, it is {sha256.hex()}"
        )
    return SectionEntry(kind, flags, offset, length, alignment, sha256)


def _check_layout(
    view: memoryview,
    entries: tuple[SectionEntry, ...],
    head_length: int,
    code_zone_offset: int,
    source: str,
) -> None:
    end, last_kind = head_length, 0
    for index, entry in enumerate(entries):
        where = f"plan {source}: section '{entry.name}' (table entry {index})"
        is_repeated = entry.kind == last_kind and entry.kind in _SINGLE_KINDS
        if entry.kind < last_kind or is_repeated:
            raise PlanFormatError(
                f"{where}: stands after '{section_name(last_kind)}'; kinds must ascend and only "
                "code sections repeat"
            )
        expected = align_up(end, entry.alignment)
        if entry.offset != expected:
            problem = "overlaps what is before it" if entry.offset < end else "leaves a hole"
            raise PlanFormatError(
                f"{where}: begins at byte {entry.offset:,}, must begin at byte {expected:,} "
                f"(the part before ends at {end:,}, alignment {entry.alignment:,}); it {problem} "
                "or is misaligned"
            )
        if entry.length < 1 or entry.end > len(view):
            raise PlanFormatError(
                f"{where}: ends at byte {entry.end:,} (length {entry.length:,}) but the file has "
                f"{len(view):,} bytes"
            )
        if view[end : entry.offset] != bytes(entry.offset - end):
            raise PlanFormatError(
                f"{where}: the padding before it, bytes {end:,} to {entry.offset:,}, is not zero"
            )
        end, last_kind = entry.end, entry.kind
    if end != len(view):
        raise PlanFormatError(
            f"plan {source}: section '{entries[-1].name}' is the last and ends at byte "
            f"{end:,} but the file has {len(view):,} bytes"
        )
    code = [entry.offset for entry in entries if entry.flags & FLAG_CODE_ZONE]
    expected_zone = code[0] if code else len(view)
    if code_zone_offset != expected_zone:
        raise PlanFormatError(
            f"plan {source}: header, byte 56: the code zone begins at byte {code_zone_offset:,}, "
            f"the first code section at byte {expected_zone:,}"
        )
    if entries[0].kind != SectionKind.MANIFEST:
        raise PlanFormatError(
            f"plan {source}: the first section is '{entries[0].name}', it must be 'manifest'"
        )


def _check_company(container: Container, source: str) -> None:
    """Sections that must come together, or not at all."""
    kinds = {entry.kind for entry in container.entries}
    if container.is_stripped:
        if SectionKind.CHUNKS not in kinds or SectionKind.WHOLE_HEAD not in kinds:
            raise PlanFormatError(
                f"plan {source}: header, byte 24: the weights are said to be stripped, but the "
                "table has no 'chunks' or no 'whole_head', which tell what was taken out"
            )
        if SectionKind.WEIGHTS in kinds:
            raise PlanFormatError(
                f"plan {source}: header, byte 24: the weights are said to be stripped, but the "
                "table has 'weights'"
            )
        return
    if SectionKind.WHOLE_HEAD in kinds:
        raise PlanFormatError(
            f"plan {source}: section 'whole_head' belongs to plans whose weights were stripped"
        )
    if (SectionKind.CHUNKS in kinds) != (SectionKind.WEIGHTS in kinds):
        raise PlanFormatError(
            f"plan {source}: sections 'chunks' and 'weights' must come together, the table has "
            "only one of them"
        )
