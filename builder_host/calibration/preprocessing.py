"""From a picture file to a network's input, as a small TOML or JSON file describes it.

size = [224, 224]          # height, width; default: the network's
resize = "stretch"         # or "shorter": the shorter side to `shorter`, then a centre crop
shorter = 256
stretched = [256, 256]     # with "stretch": to this height and width, then a centre crop
interpolation = "bilinear" # or nearest, bicubic, lanczos
channels = "rgb"           # or bgr, gray
layout = "nchw"            # or nhwc
scale = 1.0                # x = (pixel * scale - mean) / std, per channel, in `channels` order
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]

Pictures are turned as their EXIF orientation says, 16-bit ones are brought to 8 bits; grey, CMYK
and palette pictures are converted, transparency is left out.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import typing
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]

MAX_PIXELS = 100_000_000
_MAX_EXTENT = 1 << 15  # of a resized picture
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_CHOICES = {
    "resize": ("stretch", "shorter"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "channels": ("rgb", "bgr", "gray"),
    "layout": ("nchw", "nhwc"),
}
_MAX_DESCRIPTION_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """See the module's text; `size` is (height, width), None: the network's."""

    size: tuple[int, int] | None = None
    resize: str = "stretch"
    shorter: int = 256
    stretched: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    channels: str = "rgb"
    layout: str = "nchw"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Check choices, sizes and the number of channel values."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise BuilderError(
                    f"preprocessing: {name} is '{getattr(self, name)}'; expected one of "
                    f"{', '.join(allowed)}"
                )
        for value in (*(self.size or ()), *(self.stretched or ()), self.shorter):
            if not 1 <= value <= 1 << 14:
                raise BuilderError(f"preprocessing: an extent is {value}; expected 1 to 16384")
        if self.stretched is not None and self.resize != "stretch":
            raise BuilderError("preprocessing: 'stretched' belongs to resize = \"stretch\"")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.num_channels):
                raise BuilderError(
                    f"preprocessing: {name} has {len(values)} values, {self.channels} has "
                    f"{self.num_channels} channels"
                )
        numbers = (self.scale, *self.mean, *self.std)
        if not all(math.isfinite(v) for v in numbers) or 0.0 in self.std:
            raise BuilderError("preprocessing: scale, mean and std must be finite, std not 0")

    @property
    def num_channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.channels == "gray" else 3

    def read(self, path: str | os.PathLike[str], shape: tuple[int, ...]) -> Array:
        """One picture as float32 of the shape of one sample.

        Args:
            path: any file that Pillow reads.
            shape: [C,H,W] or [H,W,C] of the network's input, as `layout` says.

        Raises:
            BuilderError: not a picture, too large, or it does not give this shape.
        """
        pixels = self._pixels(path, self.size or self._size_in(shape)).astype(np.float32)
        mean, std = (np.asarray(v, dtype=np.float32) for v in (self.mean, self.std))
        values = (pixels * np.float32(self.scale) - mean) / std
        if self.layout == "nchw":
            values = values.transpose(2, 0, 1)
        if values.shape != shape:
            raise BuilderError(
                f"{path}: preprocessing gives {values.shape} ({self.layout}, {self.channels}), "
                f"the network takes {shape}"
            )
        return np.ascontiguousarray(values, dtype=np.float32)

    def _size_in(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if len(shape) != 3:
            raise BuilderError(f"pictures need a network input [N,C,H,W], not samples of {shape}")
        return (shape[1], shape[2]) if self.layout == "nchw" else (shape[0], shape[1])

    def _pixels(self, path: str | os.PathLike[str], size: tuple[int, int]) -> Array:
        """uint8 [H,W,channels]."""
        found = _picture(path, "L" if self.channels == "gray" else "RGB")
        from PIL import Image  # `_picture` says what to do where it is missing

        method = Image.Resampling[self.interpolation.upper()]
        height, width = size
        wide = (width, height)
        if self.resize == "shorter":
            ratio = self.shorter / min(found.size)
            wide = (max(1, round(found.width * ratio)), max(1, round(found.height * ratio)))
        elif self.stretched is not None:
            wide = (self.stretched[1], self.stretched[0])
        if max(wide) > _MAX_EXTENT:
            raise BuilderError(
                f"{path}: {found.width}x{found.height} pixels become {wide[0]}x{wide[1]}; the "
                f"limit is {_MAX_EXTENT} on a side"
            )
        if found.size != wide:
            found = found.resize(wide, method)
        left, top = (found.width - width) // 2, (found.height - height) // 2
        if left < 0 or top < 0:
            raise BuilderError(
                f"{path}: a crop of {height}x{width} does not fit the resized picture of "
                f"{found.height}x{found.width}; raise '{self._resized_by}'"
            )
        found = found.crop((left, top, left + width, top + height))
        pixels = np.asarray(found, dtype=np.uint8).reshape(height, width, -1)
        return pixels[:, :, ::-1] if self.channels == "bgr" else pixels

    @property
    def _resized_by(self) -> str:
        return "shorter" if self.resize == "shorter" else "stretched"


def _picture(path: str | os.PathLike[str], mode: str) -> Image:
    """A picture as `L` or `RGB`, upright. Raises BuilderError."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise BuilderError("reading pictures needs Pillow; run: pip install pillow") from error
    # what Pillow's readers raise on damaged files, beside their own errors
    damaged = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise BuilderError(
                    f"{path}: {width}x{height} pixels are over the limit of {MAX_PIXELS:,}"
                )
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in _SIXTEEN_BITS:
                values = np.asarray(picture)
                if values.min() < 0 or values.max() > 0xFFFF:
                    raise BuilderError(
                        f"{path}: values from {values.min()} to {values.max()}; "
                        "pictures have 8 or 16 bits"
                    )
                picture = Image.fromarray(
                    ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
                )
            elif picture.mode == "F":
                raise BuilderError(f"{path}: pixels are floats; pictures have 8 or 16 bits")
            elif "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return picture.convert(mode)
    except (UnidentifiedImageError, Image.DecompressionBombError, *damaged) as error:
        raise BuilderError(f"{path}: not a readable picture: {error}") from error


def load_preprocessing(path: str | os.PathLike[str]) -> Preprocessing:
    """Read a description.

    Raises:
        BuilderError: unreadable, an unknown key, or a value of the wrong kind.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_DESCRIPTION_BYTES:
            raise BuilderError(f"{path}: too large for a preprocessing description")
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else _toml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BuilderError(f"{path}: cannot read the preprocessing description: {error}") from error
    if not isinstance(data, Mapping):
        raise BuilderError(f"{path}: a preprocessing description is a table of settings")
    try:
        return preprocessing_of(data)
    except BuilderError as error:
        raise BuilderError(f"{path}: {error}") from error


def preprocessing_of(data: Mapping[str, Any]) -> Preprocessing:
    """A description from a table of settings. Raises BuilderError naming the key."""
    kinds = typing.get_type_hints(Preprocessing)
    known = [f.name for f in fields(Preprocessing)]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise BuilderError(f"unknown key '{key}'; known: {', '.join(known)}")
        values[key] = _checked(key, value, kinds[key])
    return Preprocessing(**values)


def _checked(key: str, value: Any, kind: Any) -> Any:
    """A value of a field's kind: text, whole number, number, or a list of numbers."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str and isinstance(value, str):
        return value
    if kind is int and is_number and isinstance(value, int):
        return value
    if kind is float and is_number:
        return float(value)
    if key in ("size", "stretched") and isinstance(value, list) and len(value) == 2:
        if all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            return tuple(value)
    elif key in ("mean", "std"):
        items = value if isinstance(value, list) else [value]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in items):
            return tuple(float(v) for v in items)
    raise BuilderError(f"'{key}' is {value!r}, which is no valid value for it")


def _toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise BuilderError(
                "Python 3.10 cannot read TOML by itself; run: pip install tomli, or use JSON"
            ) from error
    return tomllib.loads(text)
