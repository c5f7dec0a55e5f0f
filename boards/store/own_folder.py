"""A folder for files that one process is writing; when that has ended, another removes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


class OwnFolder:
    """A folder below `parent`, made when the first path in it is asked for.

    Its process holds a lock on it, which ends with the process: how it ends does not matter. Making
    and removing folders takes turns by a lock on `parent`, so that none goes before it is locked.
    """

    def __init__(self, parent: Path) -> None:
        """Remove what processes that ended left behind."""
        self._parent = parent
        self._folder: Path | None = None
        self._descriptor = -1
        if parent.is_dir():
            with folder_lock(parent):
                for folder in parent.iterdir():
                    if folder.is_dir() and not is_locked(folder):
                        shutil.rmtree(folder, ignore_errors=True)

    def new_path(self) -> Path:
        """Path of a file that is not there yet.

        Raises:
            OSError: the disk refuses.
        """
        if self._folder is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(self._parent):
                folder = self._parent / secrets.token_hex(8)
                folder.mkdir()
                self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                self._folder = folder
        return self._folder / secrets.token_hex(8)

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._descriptor)
            self._folder = None


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep out everybody else who takes the lock of a folder, in this process or another."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on a file or folder; not so when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
