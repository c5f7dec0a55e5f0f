"""Plans without their weights: taking them out, reading what is left, filling it (SPEC.md 11).

A stripped plan keeps every other section as it was, and header and table of the whole plan beside
its own. So the signature of the whole plan can be checked without the weights, and the same weights
give back the same file, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from planformat import limits
from planformat.container import (
    ENTRY,
    HEADER,
    Container,
    SectionEntry,
    SectionKind,
    align_up,
    encode_head,
    parse_container,
)
from planformat.errors import PlanError, PlanFormatError, PlanStrippedError
from planformat.plan import Buffer, Plan
from planformat.reader import (
    bytes_view,
    check_sections,
    decode_sections,
    open_plan,
    read_plan,
    section_content,
)
from planformat.sections.chunks import decode_chunks, encode_chunks, weights_hash
from planformat.validate import check_plan
from planformat.version import FEATURE_STRIPPED, VERSION_MINOR

_OWN_ALIGNMENT = 64

_Row = tuple[SectionEntry, Buffer]


@dataclass(frozen=True, slots=True)
class StrippedPlan:
    """What is left of a plan without its weights.

    Attributes:
        plan: the plan, with empty `weights`; `chunk_lengths` are those of what was taken out.
        chunk_hashes: SHA-256 of each chunk that was taken out.
        container: header and table of the file.
        whole_head: header and table of the whole plan.
    """

    plan: Plan
    chunk_hashes: tuple[bytes, ...]
    container: Container
    whole_head: bytes

    @property
    def weights_bytes(self) -> int:
        """Size of what was taken out."""
        return sum(self.plan.chunk_lengths)


def is_stripped(data: bytes | bytearray | memoryview | mmap.mmap, *, source: str = "plan") -> bool:
    """Whether a plan's weights were taken out. Raises as `read_container` does."""
    return parse_container(bytes_view(data), source).is_stripped


def strip_plan(data: bytes | bytearray | memoryview | mmap.mmap, *, source: str = "plan") -> bytes:
    """The same plan without its weights.

    Args:
        data: content of a PLAN file.
        source: name of the plan for messages.

    Raises:
        PlanError: the plan is damaged, stripped already, or has no weights.
    """
    read_plan(data, source=source)
    view = bytes_view(data)
    whole = parse_container(view, source)
    if whole.find(SectionKind.WEIGHTS) is None:
        raise PlanError(f"plan {source}: has no weights that could be stripped")
    own_head = SectionEntry(
        SectionKind.WHOLE_HEAD,
        0,
        0,
        len(whole.head),
        _OWN_ALIGNMENT,
        hashlib.sha256(whole.head).digest(),
    )
    rows = _rows(view, whole, SectionKind.WEIGHTS)
    return _file(
        [*rows, (own_head, whole.head)],
        minor=max(whole.minor, VERSION_MINOR),
        required_features=whole.required_features | FEATURE_STRIPPED,
        optional_features=whole.optional_features,
    )


def read_stripped(
    data: bytes | bytearray | memoryview | mmap.mmap,
    *,
    public_key: bytes | None = None,
    source: str = "plan",
) -> StrippedPlan:
    """Verify a stripped plan and describe it; code is a view of `data`, not a copy.

    Args:
        data: content of the file.
        public_key: 32 bytes; the whole plan must have been signed with its private half. Then the
            stripped plan is what was released, and so are weights with the hashes that it names.
        source: name of the plan for messages.

    Raises:
        PlanError: as `read_plan`, or the plan is not stripped.
    """
    view = bytes_view(data)
    container = parse_container(view, source)
    if not container.is_stripped:
        raise PlanError(f"plan {source}: has its weights, it is not stripped")
    chunks = _required(container, SectionKind.CHUNKS)
    head_entry = _required(container, SectionKind.WHOLE_HEAD)
    whole_head = bytes(section_content(view, head_entry))
    check_sections(view, container, whole_head, public_key, source)
    stated = _stated(whole_head, container, source)
    lengths, hashes = decode_chunks(
        section_content(view, chunks), chunks.offset, stated.weights_bytes, source
    )
    kept = [entry for entry in container.entries if entry.kind != SectionKind.WHOLE_HEAD]
    expected = encode_head(
        _placed([*kept, _weights_entry(stated, hashes)]),
        minor=stated.minor,
        required_features=container.required_features & ~FEATURE_STRIPPED,
        optional_features=container.optional_features,
    )
    if expected != whole_head:
        raise PlanFormatError(
            f"plan {source}: section 'whole_head', byte {head_entry.offset:,}: is not the header "
            "and table of this plan with its weights; fetch the stripped plan again"
        )
    plan = decode_sections(view, container, memoryview(b""), lengths, source)
    check_plan(plan, source=source, is_stripped=True)
    return StrippedPlan(plan, hashes, container, whole_head)


@contextlib.contextmanager
def open_whole_or_stripped(
    path: str | os.PathLike[str],
) -> Iterator[tuple[Plan, Container]]:
    """A plan to look into, which need not run: with its weights mapped, or without them.

    Raises:
        PlanError: as `open_plan`, but for stripped plans.
    """
    try:
        opened = open_plan(path)
    except PlanStrippedError:
        data = Path(path).read_bytes()
        stripped = read_stripped(data, source=os.fspath(path))
        yield stripped.plan, stripped.container
        return
    with opened:
        yield opened.plan, opened.container


def filled_plan(
    data: bytes | bytearray | memoryview | mmap.mmap, weights: Buffer, *, source: str = "plan"
) -> bytes:
    """The whole plan again, exactly as it was before it was stripped.

    Args:
        data: content of the stripped plan.
        weights: the weights region that was taken out.
        source: name of the plan for messages.

    Raises:
        PlanError: the stripped plan is damaged, or these are other weights.
    """
    stripped = read_stripped(data, source=source)
    if not has_weights_of(stripped, weights):
        raise PlanError(
            f"plan {source}: these {memoryview(weights).nbytes:,} bytes are not the "
            f"{stripped.weights_bytes:,} bytes of weights that were stripped"
        )
    container = stripped.container
    stated = _stated(stripped.whole_head, container, source)
    rows = _rows(bytes_view(data), container, SectionKind.WHOLE_HEAD)
    return _file(
        [*rows, (_weights_entry(stated, stripped.chunk_hashes), weights)],
        minor=stated.minor,
        required_features=container.required_features & ~FEATURE_STRIPPED,
        optional_features=container.optional_features,
    )


def has_weights_of(stripped: StrippedPlan, weights: Buffer) -> bool:
    """Whether these are the weights that were taken out."""
    view = memoryview(weights).cast("B")
    if len(view) != stripped.weights_bytes:
        return False
    _, digest = encode_chunks(view, stripped.plan.chunk_lengths)
    return digest == weights_hash(stripped.chunk_hashes)


class _Stated(NamedTuple):
    """What only the whole plan's head tells: the rest of it follows from the stripped plan."""

    minor: int
    weights_bytes: int
    weights_alignment: int


def _stated(whole_head: bytes, container: Container, source: str) -> _Stated:
    where = f"plan {source}: section 'whole_head'"
    if len(whole_head) != len(container.head):  # one section less, another one more
        raise PlanFormatError(
            f"{where}: has {len(whole_head):,} bytes, must have {len(container.head):,}"
        )
    minor = HEADER.unpack_from(whole_head)[2]
    for at in range(HEADER.size, len(whole_head), ENTRY.size):
        kind, _, _, length, alignment, _, _ = ENTRY.unpack_from(whole_head, at)
        if kind != SectionKind.WEIGHTS:
            continue
        is_power = alignment > 0 and not alignment & (alignment - 1)
        if not is_power or not (
            limits.CHUNK_ALIGNMENT_BYTES <= alignment <= limits.MAX_ALIGNMENT_BYTES
        ):
            raise PlanFormatError(f"{where}: the weights' alignment is {alignment:,} bytes")
        if not 1 <= length <= limits.MAX_REGION_BYTES:
            raise PlanFormatError(
                f"{where}: the weights have {length:,} bytes, allowed are 1 to "
                f"{limits.MAX_REGION_BYTES:,}"
            )
        return _Stated(minor, length, alignment)
    raise PlanFormatError(f"{where}: names no weights")


def _weights_entry(stated: _Stated, chunk_hashes: Sequence[bytes]) -> SectionEntry:
    return SectionEntry(
        SectionKind.WEIGHTS,
        0,
        0,
        stated.weights_bytes,
        stated.weights_alignment,
        weights_hash(chunk_hashes),
    )


def _rows(view: memoryview, container: Container, without: SectionKind) -> list[_Row]:
    """Every section but one with its content."""
    return [(e, section_content(view, e)) for e in container.entries if e.kind != without]


def _placed(entries: Sequence[SectionEntry]) -> list[SectionEntry]:
    """The entries in the order of a file, where they then lie."""
    placed, end = [], HEADER.size + len(entries) * ENTRY.size
    for entry in sorted(entries, key=lambda entry: entry.kind):  # stable: code keeps its order
        moved = entry._replace(offset=align_up(end, entry.alignment))
        placed.append(moved)
        end = moved.end
    return placed


def _file(
    rows: Sequence[_Row], *, minor: int, required_features: int, optional_features: int
) -> bytes:
    """The content of a file of these sections."""
    entries = _placed([entry for entry, _ in rows])
    head = encode_head(
        entries,
        minor=minor,
        required_features=required_features,
        optional_features=optional_features,
    )
    parts: list[Buffer] = [head]
    end = len(head)
    for entry, (_, content) in zip(entries, sorted(rows, key=lambda row: row[0].kind), strict=True):
        parts += [bytes(entry.offset - end), content]
        end = entry.end
    return b"".join(parts)


def _required(container: Container, kind: SectionKind) -> SectionEntry:
    entry = container.find(kind)
    assert entry is not None  # parse_container has seen to it
    return entry
