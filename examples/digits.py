"""Ten handwritten digits, as TensorRT's samples read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


def read_pgm(path: Path) -> npt.NDArray[np.uint8]:
    """A binary PGM file of 8 bits: uint8 [height, width]."""
    magic, size, peak, pixels = path.read_bytes().split(b"\n", 3)
    if magic != b"P5" or peak != b"255":
        raise SystemExit(f"{path} is no binary PGM file of 8 bits")
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8, width * height).reshape(height, width)


def read_digits() -> npt.NDArray[np.uint8]:
    """The digits 0 to 9 in order, uint8 [10, 28, 28], white on black."""
    return np.stack([read_pgm(DATA / "images" / "digits" / f"{n}.pgm") for n in range(10)])
