"""What the cases of all convolution tests say: the extents of a window operation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowCase:
    """Extents of a two-dimensional convolution."""

    channels: int
    filters: int
    height: int
    width: int
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    batch: int = 1

    def extents(self) -> str:
        """Text for the names of tests."""
        image = f"{self.batch}x{self.channels}x{self.height}x{self.width}k{self.filters}"
        kernel = "x".join(map(str, self.kernel)) + "s" + "".join(map(str, self.strides))
        pads = "p" + "".join(map(str, self.pads)) + "d" + "".join(map(str, self.dilations))
        return f"{image}-{kernel}-{pads}-g{self.groups}"
