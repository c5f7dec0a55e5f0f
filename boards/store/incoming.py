"""Transfers to a board, and a cache of files that it needs for a while."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from boards.errors import StoreError
from boards.store.durable_file import write_durably
from boards.store.incoming_file import PART, TABLE, IncomingFile, file_sha256
from boards.store.own_folder import OwnFolder, folder_lock, is_locked
from boards.store.pieces import Piece, decode_table

MAX_INCOMING = 4  # transfers at work or kept for later; the one that rested longest goes first
MAX_CACHE_BYTES = 512 << 20
_DISK_RESERVE_BYTES = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Incoming:
    """All transfers of a store, and a cache of files that are only needed for a while.

    Several processes may use one store: none drops a transfer or a result that another is at.
    `begin` and `IncomingFile.check` may run in one other thread: they read and hash whole files.
    """

    def __init__(self, root: Path) -> None:
        """Use the folders `incoming`, `cache` and `results` of a store's root."""
        self.folder = root / "incoming"
        self.cache = root / "cache"
        self._root = root
        self._open: dict[str, IncomingFile] = {}
        self._results = OwnFolder(root / "results")

    def begin(self, sha256: str, size_bytes: int, table: bytes) -> IncomingFile:
        """Start a transfer or go on with it; pieces of other files here are copied.

        Raises:
            StoreError: no such hash, a wrong table, or too little space on the disk.
        """
        check_sha256(sha256)
        self._close(sha256)
        pieces = decode_table(table, size_bytes)  # before anything is made
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):  # nobody makes room while the files are opened
            self._make_room(keep=sha256)
            folder = self.folder / sha256
            here = folder / PART
            held = here.stat().st_blocks * 512 if here.exists() else 0
            free = shutil.disk_usage(self.folder).free
            if size_bytes - held + _DISK_RESERVE_BYTES > free:
                raise StoreError(
                    f"{self.folder}: {free:,} bytes are free, the file of {size_bytes:,} bytes "
                    f"does not fit beside a reserve of {_DISK_RESERVE_BYTES:,}; remove something"
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

    def is_checking(self, sha256: str) -> bool:
        """Whether a transfer is complete but for its check."""
        file = self._open.get(sha256)
        return file is not None and file.is_checking

    def transfers(self) -> tuple[IncomingFile, ...]:
        """Transfers that were begun and did not end, since this process started."""
        return tuple(self._open.values())

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

    def new_result(self) -> Path:
        """Where a file may be written that `keep_result` then takes into the cache."""
        return self._results.new_path()

    def keep_result(self, path: Path) -> tuple[str, int]:
        """Take a file of `new_result` into the cache. Returns its SHA-256 and size in bytes."""
        with open(path, "rb") as file:
            sha256 = file_sha256(file.fileno())
        target = self.cache / sha256
        target.mkdir(parents=True, exist_ok=True)
        os.replace(path, target / "content")
        os.utime(target)
        self._trim_cache(keep=sha256)
        return sha256, (target / "content").stat().st_size

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
        """Close every transfer, they can go on later; drop results that were not kept."""
        for sha256 in list(self._open):
            self._close(sha256)
        self._results.close()

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
                    file.copy(index, data)

    def _known_files(self) -> Iterator[tuple[Path, Path]]:
        """Content and piece table of every whole file on the board, and of resting transfers."""
        for table in sorted(self._root.glob(f"plans/*/releases/*/{TABLE}")):
            yield table.parent / "model.plan", table
        for table in sorted(self.cache.glob(f"*/{TABLE}")):
            yield table.parent / "content", table
        for table in sorted(self.folder.glob(f"*/{TABLE}")):
            yield table.parent / PART, table

    def _make_room(self, *, keep: str) -> None:
        """Drop transfers: first those of earlier processes, then those whose host went away."""
        resting: dict[str, float] = {}
        for path in self.folder.iterdir():
            if path.name == keep or (path.name not in self._open and is_locked(path / PART)):
                continue
            with contextlib.suppress(FileNotFoundError):  # the other thread has finished it
                resting[path.name] = path.stat().st_mtime
        at_work = {file.sha256: file for file in self.transfers() if file.sha256 in resting}
        names = sorted(resting.keys() - at_work, key=resting.__getitem__)
        names += [
            file.sha256
            for file in sorted(at_work.values(), key=lambda file: file.used_at)
            if not file.is_checking
        ]
        for name in names[: max(0, len(resting) - (MAX_INCOMING - 1))]:
            self._close(name)
            self._drop(self.folder / name)

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
