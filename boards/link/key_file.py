"""Key files of links: a line `edgeplan-link-key-1`, then 32 bytes in base64."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from boards.errors import LinkError

KEY_BYTES = 32
_HEAD = "edgeplan-link-key-1"


def write_link_key(path: str | os.PathLike[str]) -> bytes:
    """Make a key and write it into a new file that only its owner can read.

    Raises:
        LinkError: the file exists or cannot be written.
    """
    key = os.urandom(KEY_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{_HEAD}\n{base64.b64encode(key).decode('ascii')}\n")
    except OSError as error:
        raise LinkError(f"link key {os.fspath(path)}: cannot be written: {error}") from error
    return key


def read_link_key(path: str | os.PathLike[str]) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        LinkError: unreadable, no key, or readable by others than its owner.
    """
    where = f"link key {os.fspath(path)}"
    try:
        mode = os.stat(path).st_mode
        lines = Path(path).read_bytes()[:1024].decode("ascii", "replace").split()
    except OSError as error:
        raise LinkError(f"{where}: cannot be read: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LinkError(
            f"{where}: others may read it (mode {stat.S_IMODE(mode):o}); run: chmod 600 "
            f"{os.fspath(path)}"
        )
    try:
        key = base64.b64decode(lines[1], validate=True) if len(lines) == 2 else b""
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES or lines[0] != _HEAD:
        raise LinkError(f"{where}: is no link key; make one with: edgeplan link-key FILE")
    return key
