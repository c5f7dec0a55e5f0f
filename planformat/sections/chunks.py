"""Section CHUNKS: length and SHA-256 of each weight chunk (SPEC.md section 4.2)."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence

from planformat import limits
from planformat.errors import PlanFormatError

_HEAD = struct.Struct("<IIQ")
_ENTRY = struct.Struct("<Q32s")

_PARALLEL_BYTES = 32 << 20
_MAX_THREADS = 4


def encode_chunks(weights: memoryview, chunk_lengths: Sequence[int]) -> tuple[bytes, bytes]:
    """The section's bytes, and the SHA-256 that the table gives for the WEIGHTS section."""
    hashes = list(_digests(weights, chunk_lengths))
    rows = [
        _ENTRY.pack(length, digest) for length, digest in zip(chunk_lengths, hashes, strict=True)
    ]
    return _HEAD.pack(len(rows), 0, 0) + b"".join(rows), weights_hash(hashes)


def weights_hash(chunk_hashes: Sequence[bytes]) -> bytes:
    """SHA-256 over the chunk hashes in order: the hash of the WEIGHTS section."""
    return hashlib.sha256(b"".join(chunk_hashes)).digest()


def decode_chunks(
    section: memoryview, offset: int, weights_length: int, source: str
) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Lengths and hashes of the chunks.

    Args:
        section: content of the CHUNKS section.
        offset: its first byte in the file.
        weights_length: length of the WEIGHTS section in bytes.
        source: name of the plan for messages.

    Raises:
        PlanFormatError: counts or lengths disagree with the sections' sizes.
    """
    where = f"plan {source}: section 'chunks', byte"
    if len(section) < _HEAD.size:
        raise PlanFormatError(
            f"{where} {offset:,}: {len(section)} bytes are too few for its head of {_HEAD.size}"
        )
    num, reserved_a, reserved_b = _HEAD.unpack_from(section)
    if reserved_a or reserved_b:
        raise PlanFormatError(f"{where} {offset + 4:,}: reserved fields are not zero")
    if not 1 <= num <= limits.MAX_CHUNKS or len(section) != _HEAD.size + num * _ENTRY.size:
        raise PlanFormatError(
            f"{where} {offset:,}: {num:,} chunks need {_HEAD.size + num * _ENTRY.size:,} bytes, "
            f"the section has {len(section):,}; allowed are 1 to {limits.MAX_CHUNKS:,} chunks"
        )
    lengths, hashes, total = [], [], 0
    for index in range(num):
        at = _HEAD.size + index * _ENTRY.size
        length, digest = _ENTRY.unpack_from(section, at)
        is_last = index == num - 1
        if length < 1 or (not is_last and length % limits.CHUNK_ALIGNMENT_BYTES):
            raise PlanFormatError(
                f"{where} {offset + at:,}: chunk {index} has {length:,} bytes; every chunk but the "
                f"last must be a positive multiple of {limits.CHUNK_ALIGNMENT_BYTES}"
            )
        lengths.append(length)
        hashes.append(digest)
        total += length
    if total != weights_length:
        raise PlanFormatError(
            f"{where} {offset:,}: the chunks sum to {total:,} bytes, section 'weights' has "
            f"{weights_length:,}"
        )
    return tuple(lengths), tuple(hashes)


def check_weights(
    weights: memoryview,
    offset: int,
    lengths: Sequence[int],
    hashes: Sequence[bytes],
    source: str,
) -> None:
    """Compare every chunk with its hash.

    Raises:
        PlanFormatError: names the first chunk that differs and its place in the file.
    """
    begin = offset
    for index, actual in enumerate(_digests(weights, lengths)):
        if actual != hashes[index]:
            raise PlanFormatError(
                f"plan {source}: section 'weights', chunk {index}, bytes {begin:,} to "
                f"{begin + lengths[index]:,}: SHA-256 is {actual.hex()}, stored is "
                f"{hashes[index].hex()}; the weights were changed: fetch the plan again"
            )
        begin += lengths[index]


def _digests(weights: memoryview, lengths: Sequence[int]) -> Iterator[bytes]:
    """SHA-256 of every chunk in order; large regions are hashed by several threads."""
    ends = list(itertools.accumulate(lengths))

    def digest_of(end: int, length: int) -> bytes:
        return hashlib.sha256(weights[end - length : end]).digest()

    if len(lengths) == 1 or sum(lengths) < _PARALLEL_BYTES:
        yield from map(digest_of, ends, lengths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="plan-hash") as pool:
        yield from pool.map(digest_of, ends, lengths)
