"""Writes the network after each pass into a folder: `03-fuse_epilogue.txt` and so on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from builder_host.network.dump import describe
from builder_host.network.network import Network, Tensor
from planformat.datatypes import TensorFormat


class TraceWriter:
    """A pass observer."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Make the folder if it is not there."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last = -1

    def __call__(self, index: int, name: str, network: Network) -> None:
        """Write one dump."""
        self._last = index
        self._write(f"{index:02d}-{name}.txt", describe(network))

    def layouts(self, network: Network, formats: Mapping[Tensor, TensorFormat]) -> None:
        """Write the network after layout assignment, then the format of every tensor."""
        rows = [f"{t.name} {t.type} {fmt.name}" for t, fmt in formats.items()]
        text = describe(network) + "\n# formats\n" + "\n".join(rows) + "\n"
        self._write(f"{self._last + 1:02d}-layout_assignment.txt", text)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")
