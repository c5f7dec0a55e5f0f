"""The weights region of a plan: packed constants, each once, in content-addressed chunks.

Large pieces start a chunk of their own and are cut every mebibyte, so that a re-tuned plan shares
the chunks of every constant whose packing did not change; small ones share chunks.
"""

from __future__ import annotations

import itertools
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK_ALIGN_BYTES = 4096
PIECE_ALIGN_BYTES = 64
MAX_CHUNK_BYTES = 1 << 20
_LARGE_BYTES = 1 << 16
_SAMPLED_BYTES = 256  # pieces that agree in so many places are compared whole


class WeightsRegion:
    """Collects pieces; `finish` lays them out."""

    def __init__(self) -> None:
        """Start empty."""
        self._pieces: dict[bytes, npt.NDArray[np.uint8]] = {}
        self._alike: dict[tuple[str, int, bytes], list[bytes]] = {}

    def add(self, array: npt.NDArray[Any], owner: str = "") -> bytes:
        """Take an array's bytes; equal bytes are stored once. Returns the key for `finish`.

        Args:
            array: of any type.
            owner: equal bytes of different owners are stored once for each.
        """
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        sample = flat[:: flat.nbytes // _SAMPLED_BYTES + 1].tobytes()
        alike = self._alike.setdefault((owner, flat.nbytes, sample), [])
        for key in alike:
            if np.array_equal(self._pieces[key], flat):
                return key
        key = len(self._pieces).to_bytes(8, "little")
        self._pieces[key] = flat
        alike.append(key)
        return key

    def finish(self) -> tuple[npt.NDArray[np.uint8], tuple[int, ...], dict[bytes, int]]:
        """The region's bytes, the length of every chunk, the offset in bytes of every piece.

        The bytes start on a page, so that a plan can be run in place before it is written. Large
        pieces come first in the order of their first use, then the small ones.
        """
        large = [(k, p) for k, p in self._pieces.items() if p.nbytes >= _LARGE_BYTES]
        small = [(k, p) for k, p in self._pieces.items() if p.nbytes < _LARGE_BYTES]
        offsets: dict[bytes, int] = {}
        cuts: list[int] = []
        position = 0
        for key, piece in large:
            offsets[key] = position
            end = _aligned(position + piece.nbytes, CHUNK_ALIGN_BYTES)
            cuts.extend(range(position + MAX_CHUNK_BYTES, end, MAX_CHUNK_BYTES))
            cuts.append(end)
            position = end
        start = position
        for key, piece in small:
            if position + piece.nbytes - start > _LARGE_BYTES:
                position = start = _aligned(position, CHUNK_ALIGN_BYTES)
                cuts.append(position)
            offsets[key] = position
            position = _aligned(position + piece.nbytes, PIECE_ALIGN_BYTES)
        if position > (cuts[-1] if cuts else 0):
            position = _aligned(position, CHUNK_ALIGN_BYTES)
            cuts.append(position)
        pages = mmap.mmap(-1, max(1, position))
        data = np.frombuffer(pages, np.uint8, position)
        for key, piece in self._pieces.items():
            data[offsets[key] : offsets[key] + piece.nbytes] = piece
        edges = [0, *dict.fromkeys(cut for cut in cuts if cut > 0)]
        lengths = tuple(b - a for a, b in itertools.pairwise(edges))
        return data, lengths, offsets


def _aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
