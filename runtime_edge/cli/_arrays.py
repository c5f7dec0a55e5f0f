"""Input files of commands: `NAME=FILE.npy` as it was typed, and the array in such a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from runtime_edge.cli import CommandError

_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"


def input_files(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and path of each --input.

    Raises:
        CommandError: not NAME=FILE.npy, or a name comes twice.
    """
    seen = set()
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise CommandError(f"--input {text}: expected NAME=FILE.npy")
        if name in seen:
            raise CommandError(f"--input {text}: '{name}' is given twice")
        seen.add(name)
        yield name, path


def read_array(name: str, path: str) -> Any:
    """The NumPy array in a .npy file, which may hold anything else instead.

    Args:
        name: of the input, for messages.
        path: of the file.

    Raises:
        CommandError: NumPy is missing, or the file holds no array of numbers, whole.
        OSError: it cannot be read.
    """
    where = f"--input {name}={path}"
    try:
        import numpy as np
    except ImportError as error:
        raise CommandError(
            "reading .npy files needs NumPy; install it with: pip install numpy"
        ) from error
    from tokenize import TokenError

    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CommandError(f"{where}: not a .npy file: it is no regular file")
    with open(path, "rb") as file:
        magic = file.read(len(_MAGIC))
        if magic.startswith(_ZIP_MAGIC):
            raise CommandError(
                f"{where}: an archive of several arrays; write the one with numpy.save"
            )
        if magic != _MAGIC:
            raise CommandError(
                f"{where}: not a .npy file: begins with {magic!r}, not {_MAGIC!r}; write it with "
                "numpy.save"
            )
        try:
            # Mapping it takes no memory, whatever shape the header claims: that is checked first.
            with np.errstate(over="raise"):
                np.load(path, mmap_mode="r", allow_pickle=False)
            file.seek(0)
            return np.load(file, allow_pickle=False)
        except MemoryError as error:
            raise CommandError(
                f"{where}: there is no memory for its {status.st_size:,} bytes"
            ) from error
        # A damaged header is Python text, and gives NumPy all of these.
        except (
            *(ValueError, TypeError, ArithmeticError, EOFError),
            *(SyntaxError, TokenError, RecursionError),
        ) as error:
            text = " ".join(str(error).split())
            raise CommandError(f"{where}: not a .npy file of numbers: {text:.200}") from error
