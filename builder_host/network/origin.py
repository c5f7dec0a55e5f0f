"""Where a network came from: the files that it was imported from, and how they were read."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planformat.recipe import ModelFile

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class NetworkOrigin:
    """What an importer was given; plans state it, so that other weights can be put in.

    Attributes:
        files: the network first, then its weights, or the external data that it names.
        outputs: tensors made outputs instead of the model's own; empty: the model's own.
        image_order: `NCHW` or `NHWC`, of images at inputs and outputs of a UFF network.
    """

    files: tuple[ModelFile, ...] = ()
    outputs: tuple[str, ...] = ()
    image_order: str = "NCHW"


def origin_of_files(
    paths: Sequence[Path], *, outputs: Sequence[str] | None = None, image_order: str = "NCHW"
) -> NetworkOrigin:
    """The origin of a network that was imported from files; reads and hashes them."""
    files = []
    for path in paths:
        facts = path.stat()
        files.append(
            ModelFile(_name(path), facts.st_size, _sha256(path, facts.st_size, facts.st_mtime_ns))
        )
    return NetworkOrigin(tuple(files), tuple(outputs or ()), image_order)


def _name(path: Path) -> str:
    """The file's name as a plan may hold it: names of files need be neither UTF-8 nor printable."""
    text = os.fsencode(path.name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@functools.lru_cache(maxsize=4096)  # each of several profiles imports the same files
def _sha256(path: Path, _num_bytes: int, _changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
