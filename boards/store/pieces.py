"""Files cut into pieces that are named by their hash, so that only unknown pieces travel.

A piece table is 36 bytes per piece: its length (little-endian), then its SHA-256.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boards.errors import StoreError

MAX_PIECE_BYTES = 1 << 16
MAX_PIECES = 1 << 17
_ROW = struct.Struct("<I32s")
ROW_BYTES = _ROW.size


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a file."""

    offset: int
    length: int
    sha256: bytes


def cut(data: memoryview, edges: Iterable[int] = ()) -> tuple[Piece, ...]:
    """Pieces of a file.

    Args:
        data: the whole file.
        edges: offsets at which a piece shall begin, so that equal parts give equal pieces.
    """
    size = len(data)
    starts = sorted({0, size, *(edge for edge in edges if 0 < edge < size)})
    pieces = []
    for begin, end in itertools.pairwise(starts):
        for offset in range(begin, end, MAX_PIECE_BYTES):
            part = data[offset : min(offset + MAX_PIECE_BYTES, end)]
            pieces.append(Piece(offset, len(part), hashlib.sha256(part).digest()))
    return tuple(pieces)


def plan_edges(data: memoryview, source: str) -> list[int]:
    """Offsets in a PLAN file where its sections and its weight chunks begin.

    Raises:
        PlanError: no sound plan, or one without its weights, which no board could run.
    """
    from planformat.container import SectionKind
    from planformat.reader import read_container, require_weights
    from planformat.sections.chunks import decode_chunks

    container = read_container(data, source=source)
    require_weights(container, source)
    edges = [entry.offset for entry in container.entries]
    weights, chunks = container.find(SectionKind.WEIGHTS), container.find(SectionKind.CHUNKS)
    if weights is not None and chunks is not None:
        lengths, _ = decode_chunks(
            data[chunks.offset : chunks.end], chunks.offset, weights.length, source
        )
        edges += itertools.accumulate(lengths, initial=weights.offset)
    return edges


def encode_table(pieces: Sequence[Piece]) -> bytes:
    """The piece table of a file."""
    return b"".join(_ROW.pack(piece.length, piece.sha256) for piece in pieces)


def decode_table(table: bytes, size: int) -> tuple[Piece, ...]:
    """Pieces of a file of `size` bytes.

    Raises:
        StoreError: lengths that are not allowed or do not add up.
    """
    count, rest = divmod(len(table), _ROW.size)
    if rest or not 1 <= count <= MAX_PIECES:
        raise StoreError(
            f"piece table of {len(table):,} bytes; allowed are 1 to {MAX_PIECES:,} rows of "
            f"{_ROW.size} bytes"
        )
    pieces: list[Piece] = []
    offset = 0
    for length, sha256 in _ROW.iter_unpack(table):
        if not 1 <= length <= MAX_PIECE_BYTES:
            raise StoreError(
                f"piece {len(pieces)} has {length:,} bytes; allowed are 1 to {MAX_PIECE_BYTES:,}"
            )
        pieces.append(Piece(offset, length, sha256))
        offset += length
    if offset != size:
        raise StoreError(f"the pieces sum to {offset:,} bytes, the file shall have {size:,}")
    return tuple(pieces)
