"""One file on its way in: a part file, its piece table, and a bitmap of the pieces that are there.

The bitmap lags behind the data on disk, never the other way: pieces are synchronised before their
bits. Whatever happens to this process or to the power, a later `begin` goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
import time
from pathlib import Path

from boards.errors import StoreError
from boards.store.durable_file import sync_folder, write_durably
from boards.store.pieces import decode_table

PART, TABLE = "part", "pieces.table"
_READ_BYTES = 1 << 20
_COUNTS = struct.Struct("<QQ")
"""Behind the bitmap: pieces that came over the link, and their bytes as they travelled."""


class IncomingFile:
    """One file on its way in. Another thread may copy pieces into it and check it.

    While it is open it holds a lock on its part file, by which others know that it is at work.

    Attributes:
        sha256: of the whole file, hexadecimal; size_bytes: of it.
        pieces: in order; table: the same as it travels.
        num_copied: pieces that were found on the board at `begin`.
        num_received, received_bytes: pieces that came over the link since the transfer was first
            begun, repeats included, and their bytes as they travelled; on the disk after `sync`.
        used_at: when something was last done with it, by the monotonic clock.
        is_checking: from `begin_check` on nothing is taken until the check is over.
    """

    def __init__(self, folder: Path, sha256: str, size_bytes: int, table: bytes) -> None:
        """Open or make the files of a transfer. Use `Incoming.begin`.

        Raises:
            StoreError: a wrong table; OSError: the disk refuses.
        """
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.pieces = decode_table(table, size_bytes)
        self.table = table
        self.num_copied = 0
        self.num_received = 0
        self.received_bytes = 0
        self.used_at = time.monotonic()
        self.is_checking = False
        self._folder = folder
        self._lock = threading.Lock()
        self._unsynced: list[int] = []
        self._bits = bytearray(-(-len(self.pieces) // 8))
        folder.mkdir(parents=True, exist_ok=True)
        self._read_progress()
        os.utime(folder)
        self._part = os.open(self.part_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # shared: a board that lost its line may go on in another process before this one ends
            fcntl.flock(self._part, fcntl.LOCK_SH)
            if os.fstat(self._part).st_size != size_bytes:
                os.ftruncate(self._part, size_bytes)
            os.posix_fallocate(self._part, 0, size_bytes)
            self._map = os.open(folder / "bitmap", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            os.close(self._part)
            raise
        try:
            self._write_progress(self._bits)
            sync_folder(folder)
        except OSError:
            self.close()
            raise

    @property
    def part_path(self) -> Path:
        """Where the bytes are collected."""
        return self._folder / PART

    def has(self, index: int) -> bool:
        """Whether a piece is there."""
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    @property
    def num_missing(self) -> int:
        """Pieces that are not there."""
        return sum(not self.has(index) for index in range(len(self.pieces)))

    def missing_bitmap(self) -> bytes:
        """Bit i of byte i // 8, lowest first: piece i is wanted."""
        bits = bytearray(len(self._bits))
        for index in range(len(self.pieces)):
            if not self.has(index):
                bits[index >> 3] |= 1 << (index & 7)
        return bytes(bits)

    def put(self, index: int, data: bytes, travelled_bytes: int) -> None:
        """Take a piece that came over the link; it counts once `sync` was called.

        Args:
            index: of the piece.
            data: its bytes.
            travelled_bytes: that it took on the link.

        Raises:
            StoreError: no such piece, other bytes than its hash says, or it is not the time.
            OSError: the disk refuses.
        """
        if self.is_checking:
            raise StoreError(f"file {self.sha256[:16]} is being checked; wait")
        if not 0 <= index < len(self.pieces):
            raise StoreError(f"piece {index} of a file of {len(self.pieces)} pieces")
        piece = self.pieces[index]
        if len(data) != piece.length or hashlib.sha256(data).digest() != piece.sha256:
            raise StoreError(
                f"piece {index}: {len(data):,} bytes with another hash than the table's "
                f"{piece.length:,} bytes; send it again"
            )
        self._write(index, data)
        self.num_received += 1
        self.received_bytes += travelled_bytes

    def copy(self, index: int, data: bytes) -> None:
        """Take a piece that was found on this board, its hash compared. Errors as of `put`."""
        self._write(index, data)
        self.num_copied += 1

    def sync(self) -> None:
        """Let the pieces taken so far, then their bits, reach the disk.

        Raises:
            OSError: they did not; then they are wanted again, because a system that could not write
                a page may forget about it, and the next attempt would seem to succeed.
        """
        with self._lock:
            taken, self._unsynced = self._unsynced, []
            if not taken:
                return
            self._require_open()
            os.fdatasync(self._part)
            bits = bytearray(self._bits)
            for index in taken:
                bits[index >> 3] |= 1 << (index & 7)
            self._write_progress(bits)
            self._bits = bits

    def begin_check(self) -> None:
        """Take nothing more until `check` has found something missing, or `end_check`."""
        self.is_checking = True

    def end_check(self) -> None:
        """Take pieces again."""
        self.is_checking = False

    def check(self) -> int:
        """Compare the whole file with its hash; pieces that differ are wanted again.

        Returns:
            Number of pieces that are missing now: 0 when the file is right.

        Raises:
            StoreError: every piece is right and the whole is not, or the transfer was ended.
            OSError: the disk refuses.
        """
        self.sync()
        self._require_open()
        if self.num_missing == 0 and file_sha256(self._part) == self.sha256:
            return 0
        bits = bytearray(self._bits)
        for index, piece in enumerate(self.pieces):
            data = os.pread(self._part, piece.length, piece.offset)
            if hashlib.sha256(data).digest() != piece.sha256:
                bits[index >> 3] &= ~(1 << (index & 7))
        with self._lock:
            self._require_open()
            self._write_progress(bits)
            self._bits = bits
        if self.num_missing == 0:
            raise StoreError(
                f"every piece is right but the file's SHA-256 is not {self.sha256}: the sender's "
                "table belongs to another file"
            )
        return self.num_missing

    def close(self) -> None:
        """Close the files; the transfer can go on later."""
        with self._lock:
            if self._part >= 0:
                os.close(self._part)
                os.close(self._map)
                self._part = -1

    def _write(self, index: int, data: bytes) -> None:
        with self._lock:
            self._require_open()
            offset = self.pieces[index].offset
            written = 0
            while written < len(data):
                written += os.pwrite(self._part, data[written:], offset + written)
            self._unsynced.append(index)
            self.used_at = time.monotonic()

    def _require_open(self) -> None:
        if self._part < 0:
            raise StoreError(f"the transfer of {self.sha256[:16]} was ended; begin it again")

    def _read_progress(self) -> None:
        """Bits and counts of an earlier attempt, if they belong to the same table."""
        table_path, map_path = self._folder / TABLE, self._folder / "bitmap"
        if not table_path.exists() or table_path.read_bytes() != self.table:
            map_path.unlink(missing_ok=True)
            write_durably(table_path, self.table)
            return
        stored = map_path.read_bytes() if map_path.exists() else b""
        if len(stored) == len(self._bits) + _COUNTS.size and self.part_path.exists():
            self._bits[:] = stored[: len(self._bits)]
            self.num_received, self.received_bytes = _COUNTS.unpack_from(stored, len(self._bits))

    def _write_progress(self, bits: bytes | bytearray) -> None:
        counts = _COUNTS.pack(self.num_received, self.received_bytes)
        os.pwrite(self._map, bytes(bits) + counts, 0)
        os.fdatasync(self._map)


def file_sha256(descriptor: int) -> str:
    """SHA-256 of an open file, hexadecimal."""
    digest = hashlib.sha256()
    offset = 0
    while data := os.pread(descriptor, _READ_BYTES, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
