"""Files on their way in: a part file, its piece table, and a bitmap of the pieces that are there.

The bitmap lags behind the data on disk, never the other way: pieces are synchronised before their
bits. Whatever happens to this process or to the power, a later `begin` goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from boards.errors import StoreError
from boards.store.durable_file import sync_folder, write_durably
from boards.store.pieces import Piece, decode_table

MAX_INCOMING = 4  # transfers kept for later; the one that rested longest goes first
MAX_CACHE_BYTES = 512 << 20
_DISK_RESERVE_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
TABLE = "pieces.table"


class IncomingFile:
    """One file on its way in.

    Attributes:
        sha256: of the whole file, hexadecimal; size_bytes: of it.
        pieces: in order.
        num_copied: pieces that were found on the board at `begin`.
        is_checking: another thread compares its hashes; nothing is taken meanwhile.
    """

    def __init__(self, folder: Path, sha256: str, size_bytes: int, table: bytes) -> None:
        """Open or make the files of a transfer. Use `Incoming.begin`."""
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.pieces = decode_table(table, size_bytes)
        self.num_copied = 0
        self.is_checking = False
        self._table = table
        self._folder = folder
        self._unsynced: list[int] = []
        self._bits = bytearray(-(-len(self.pieces) // 8))
        folder.mkdir(parents=True, exist_ok=True)
        table_path = folder / TABLE
        if table_path.exists() and table_path.read_bytes() == table:
            stored = (folder / "bitmap").read_bytes() if (folder / "bitmap").exists() else b""
            if len(stored) == len(self._bits) and self.part_path.exists():
                self._bits[:] = stored
        else:
            (folder / "bitmap").unlink(missing_ok=True)
            write_durably(table_path, table)
        os.utime(folder)
        self._part = os.open(self.part_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(self._part).st_size != size_bytes:
                os.ftruncate(self._part, size_bytes)
            if size_bytes:
                os.posix_fallocate(self._part, 0, size_bytes)
            self._map = os.open(folder / "bitmap", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            os.close(self._part)
            raise
        os.pwrite(self._map, self._bits, 0)
        os.fsync(self._map)
        sync_folder(folder)

    @property
    def part_path(self) -> Path:
        """Where the bytes are collected."""
        return self._folder / "part"

    @property
    def table(self) -> bytes:
        """The piece table."""
        return self._table

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

    def put(self, index: int, data: bytes) -> None:
        """Take a piece; it counts once `sync` was called.

        Raises:
            StoreError: no such piece, or other bytes than its hash says.
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
        written = 0
        while written < len(data):
            written += os.pwrite(self._part, data[written:], piece.offset + written)
        self._unsynced.append(index)

    def sync(self) -> None:
        """Let the pieces taken so far, then their bits, reach the disk."""
        if not self._unsynced:
            return
        os.fdatasync(self._part)
        for index in self._unsynced:
            self._bits[index >> 3] |= 1 << (index & 7)
        self._unsynced.clear()
        os.pwrite(self._map, self._bits, 0)
        os.fdatasync(self._map)

    def check(self) -> int:
        """Compare the whole file with its hash; pieces that differ are wanted again.

        Returns:
            Number of pieces that are missing now: 0 when the file is right.

        Raises:
            StoreError: every piece is right and the whole is not.
        """
        self.is_checking = True
        try:
            return self._check()
        finally:
            self.is_checking = False

    def _check(self) -> int:
        self.sync()
        if self.num_missing == 0 and _file_sha256(self._part) == self.sha256:
            return 0
        for index, piece in enumerate(self.pieces):
            data = os.pread(self._part, piece.length, piece.offset)
            if hashlib.sha256(data).digest() != piece.sha256:
                self._bits[index >> 3] &= ~(1 << (index & 7))
        os.pwrite(self._map, self._bits, 0)
        os.fdatasync(self._map)
        if self.num_missing == 0:
            raise StoreError(
                f"every piece is right but the file's SHA-256 is not {self.sha256}: the sender's "
                "table belongs to another file"
            )
        return self.num_missing

    def close(self) -> None:
        """Close the files; the transfer can go on later."""
        if self._part >= 0:
            os.close(self._part)
            os.close(self._map)
            self._part = -1


class Incoming:
    """All transfers of a store, and a cache of files that are only needed for a while.

    `begin` and `IncomingFile.check` may run in one other thread: they read and hash whole files.
    """

    def __init__(self, root: Path) -> None:
        """Use the folders `incoming` and `cache` of a store's root."""
        self.folder = root / "incoming"
        self.cache = root / "cache"
        self._root = root
        self._open: dict[str, IncomingFile] = {}

    def begin(self, sha256: str, size_bytes: int, table: bytes) -> IncomingFile:
        """Start a transfer or go on with it; pieces of other files here are copied.

        Raises:
            StoreError: no such hash, a wrong table, or too little space on the disk.
        """
        check_sha256(sha256)
        self._close(sha256)
        pieces = decode_table(table, size_bytes)  # before anything is made
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(keep=sha256)
        folder = self.folder / sha256
        here = folder / "part"
        held = here.stat().st_blocks * 512 if here.exists() else 0
        free = shutil.disk_usage(self.folder).free
        if size_bytes - held + _DISK_RESERVE_BYTES > free:
            raise StoreError(
                f"{self.folder}: {free:,} bytes are free, the file of {size_bytes:,} bytes does "
                f"not fit beside a reserve of {_DISK_RESERVE_BYTES:,}; remove something"
            )
        file = IncomingFile(folder, sha256, size_bytes, table)
        try:
            self._copy_known(file, pieces)
        except BaseException:
            file.close()
            raise
        self._open[sha256] = file
        return file

    def get(self, sha256: str) -> IncomingFile:
        """A transfer that `begin` was called for. Raises StoreError."""
        file = self._open.get(check_sha256(sha256))
        if file is None:
            raise StoreError(f"no transfer of {sha256[:16]} was begun; begin it again")
        return file

    def sync(self) -> None:
        """Synchronise every transfer."""
        for file in list(self._open.values()):
            if not file.is_checking:
                file.sync()

    def to_cache(self, sha256: str) -> Path:
        """Move a complete file into the cache; older ones make room. Returns its path."""
        file = self.get(sha256)
        target = self.cache / sha256
        target.mkdir(parents=True, exist_ok=True)
        self._close(sha256)
        os.replace(file.part_path, target / "content")
        write_durably(target / TABLE, file.table)
        self._drop(self.folder / sha256)
        self._trim_cache(keep=sha256)
        return target / "content"

    def cached(self, sha256: str) -> Path:
        """Path of a file in the cache. Raises StoreError."""
        folder = self.cache / check_sha256(sha256)
        if not (folder / "content").exists():
            raise StoreError(f"no file {sha256[:16]} in the cache; send it again")
        os.utime(folder)
        return folder / "content"

    def finish(self, sha256: str) -> None:
        """Forget a transfer whose part file was moved away."""
        self._close(sha256)
        self._drop(self.folder / sha256)

    def close(self) -> None:
        """Close every transfer; they can go on later."""
        for sha256 in list(self._open):
            self._close(sha256)

    def _close(self, sha256: str) -> None:
        file = self._open.pop(sha256, None)
        if file is not None:
            file.close()

    def _copy_known(self, file: IncomingFile, pieces: Iterable[Piece]) -> None:
        by_hash: dict[bytes, list[int]] = {}
        for index, piece in enumerate(pieces):
            if not file.has(index):
                by_hash.setdefault(piece.sha256, []).append(index)
        for content, table in self._known_files():
            if not by_hash:
                break
            with contextlib.suppress(OSError, StoreError):
                self._copy_from(file, content, table.read_bytes(), by_hash)
        file.sync()

    def _copy_from(
        self, file: IncomingFile, content: Path, table: bytes, by_hash: dict[bytes, list[int]]
    ) -> None:
        with open(content, "rb") as source:
            for piece in decode_table(table, content.stat().st_size):
                if piece.sha256 not in by_hash:
                    continue
                data = os.pread(source.fileno(), piece.length, piece.offset)
                if hashlib.sha256(data).digest() != piece.sha256:
                    continue  # damaged on disk: let it travel again
                for index in by_hash.pop(piece.sha256):
                    file.put(index, data)
                    file.num_copied += 1

    def _known_files(self) -> Iterator[tuple[Path, Path]]:
        """Content and piece table of every whole file on the board, and of resting transfers."""
        for table in sorted(self._root.glob(f"plans/*/releases/*/{TABLE}")):
            yield table.parent / "model.plan", table
        for table in sorted(self.cache.glob(f"*/{TABLE}")):
            yield table.parent / "content", table
        for table in sorted(self.folder.glob(f"*/{TABLE}")):
            yield table.parent / "part", table

    def _make_room(self, *, keep: str) -> None:
        others = [p for p in self.folder.iterdir() if p.name != keep and p.name not in self._open]
        others.sort(key=lambda path: path.stat().st_mtime)
        for folder in others[: max(0, len(others) - (MAX_INCOMING - 1))]:
            self._drop(folder)

    def _trim_cache(self, *, keep: str) -> None:
        rows = [p for p in self.cache.iterdir() if (p / "content").exists()]
        rows.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for folder in rows:
            total += (folder / "content").stat().st_size
            if total > MAX_CACHE_BYTES and folder.name != keep:
                self._drop(folder)

    def _drop(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)


def check_sha256(text: str) -> str:
    """The text itself, when it is a SHA-256. Raises StoreError."""
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise StoreError(f"{text!r} is no SHA-256 in hexadecimal")
    return text


def _file_sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while data := os.pread(descriptor, _READ_BYTES, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
