"""Samples for calibration and checks: arrays in files, folders of pictures, Python iterators.

A *sample* is one input of each kind with a leading dimension of 1; `batched` puts samples together
for a network of any batch size, so that nothing depends on how the data was cut.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.calibration.preprocessing import Preprocessing
from builder_host.errors import BuilderError
from builder_host.network.network import NUMPY_OF_DTYPE, Network, Tensor

Array = npt.NDArray[Any]
Sample = Mapping[str, Array]
Source = Iterable[Any]

_MAGIC = b"\x93NUMPY"  # of .npy files
# What numpy's readers raise on damaged files, and on those that claim more than memory holds.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff"})


class ArrayFile:
    """Samples in a `.npz` (one array per input) or `.npy` file, along the first dimension."""

    def __init__(self, path: str | os.PathLike[str], network: Network, limit: int | None) -> None:
        """Open and check. Raises BuilderError."""
        self.arrays = _read_arrays(Path(path), [t.name for t in network.inputs])
        for tensor in network.inputs:
            array = self.arrays[tensor.name]
            if array.shape[1:] != tensor.shape[1:] or not array.shape[:1]:
                raise BuilderError(
                    f"{path}: array for input '{tensor.name}' has shape {array.shape}; expected "
                    f"[samples, {', '.join(map(str, tensor.shape[1:]))}]"
                )
        counts = {len(array) for array in self.arrays.values()}
        if len(counts) != 1 or 0 in counts:
            raise BuilderError(f"{path}: inputs have {sorted(counts)} samples; expected one count")
        self.count = min(counts.pop(), limit or 1 << 62)

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        """One sample after the other."""
        for number in range(self.count):
            yield {name: array[number : number + 1] for name, array in self.arrays.items()}


class PictureFolder:
    """All pictures of a folder and its subfolders, in the order of their paths.

    Attributes:
        paths: of the pictures; is_limited: whether the folder has more of them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        network: Network,
        preprocessing: Preprocessing,
        limit: int | None,
    ) -> None:
        """List the files. Raises BuilderError when there is none, or the network has two inputs."""
        if len(network.inputs) != 1:
            raise BuilderError(
                f"{folder}: pictures serve one input, the network has {len(network.inputs)}; "
                "use an .npz file"
            )
        (self.input,) = network.inputs
        self.folder = Path(folder)
        self.preprocessing = preprocessing
        found = picture_paths(folder)
        self.paths = found[:limit]
        self.is_limited = len(self.paths) < len(found)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Sample]:
        """One picture after the other."""
        for path in self.paths:
            yield {self.input.name: self.preprocessing.read(path, self.input.shape[1:])[None]}


def picture_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """Picture files under a folder, sorted. Raises BuilderError when there is none."""
    found = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in PICTURES and not path.name.startswith(".")
    )
    if not found:
        kinds = ", ".join(sorted(PICTURES))
        raise BuilderError(f"{folder}: no picture in it (looked for {kinds})")
    return found


def open_data(
    path: str | os.PathLike[str],
    network: Network,
    *,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
) -> ArrayFile | PictureFolder:
    """Samples from a file or folder.

    Args:
        path: `.npz`, `.npy`, or a folder of pictures.
        network: whose inputs are fed.
        preprocessing: of pictures; None: pixel values 0 to 255 as RGB.
        limit: use the first so many samples only.

    Raises:
        BuilderError: nothing there, or data that does not fit the inputs.
    """
    place = Path(path)
    if place.is_dir():
        return PictureFolder(place, network, preprocessing or Preprocessing(), limit)
    if place.suffix not in (".npz", ".npy"):
        raise BuilderError(f"{path}: expected a folder of pictures, an .npz or an .npy file")
    if preprocessing is not None:
        raise BuilderError(f"{path}: preprocessing is for pictures; arrays are fed as they are")
    return ArrayFile(place, network, limit)


def batched(source: Source, inputs: Sequence[Tensor]) -> Iterator[tuple[dict[str, Array], int]]:
    """Samples put together to the batch size of a network.

    Args:
        source: samples; each a mapping by input name, or an array where there is one input; with a
            leading dimension of any size, which is cut or joined as needed.
        inputs: of the network; all have the batch as their first dimension.

    Yields:
        Arrays by input name, of the network's shapes and element types, and how many of the rows
        are samples: the last batch is filled up with its last sample.

    Raises:
        BuilderError: an input is missing, or a sample has another shape.
    """
    size = inputs[0].shape[0] if inputs[0].shape else 1
    waiting: dict[str, list[Array]] = {t.name: [] for t in inputs}
    count = 0
    for sample in source:
        rows = _rows(sample, inputs)
        for name, array in rows.items():
            waiting[name].append(array)
        count += len(next(iter(rows.values())))
        while count >= size:
            joined = {name: np.concatenate(parts) for name, parts in waiting.items()}
            yield {name: np.ascontiguousarray(a[:size]) for name, a in joined.items()}, size
            waiting = {name: [a[size:]] for name, a in joined.items()}
            count -= size
    if count:
        joined = {name: np.concatenate(parts) for name, parts in waiting.items()}
        filled = {
            name: np.concatenate([a, np.repeat(a[-1:], size - count, axis=0)])
            for name, a in joined.items()
        }
        yield filled, count


def _rows(sample: Any, inputs: Sequence[Tensor]) -> dict[str, Array]:
    if not isinstance(sample, Mapping):
        if len(inputs) != 1:
            raise BuilderError(
                f"a sample is {type(sample).__name__}; the network has {len(inputs)} inputs, so "
                "each sample must be a mapping by input name"
            )
        sample = {inputs[0].name: sample}
    rows: dict[str, Array] = {}
    for tensor in inputs:
        if tensor.name not in sample:
            raise BuilderError(
                f"a sample lacks input '{tensor.name}'; it has {', '.join(map(str, sample))}"
            )
        array = np.asarray(sample[tensor.name])
        if array.shape == tensor.shape[1:]:
            array = array[None]
        if array.shape[1:] != tensor.shape[1:] or not array.shape:
            raise BuilderError(
                f"a sample of input '{tensor.name}' has shape {array.shape}; expected "
                f"[n, {', '.join(map(str, tensor.shape[1:]))}]"
            )
        rows[tensor.name] = array.astype(NUMPY_OF_DTYPE[tensor.dtype], copy=False)
    if len({len(array) for array in rows.values()}) != 1:
        raise BuilderError("the inputs of a sample have different leading dimensions")
    return rows


@contextlib.contextmanager
def opened_arrays(path: Path, what: str) -> Iterator[Any]:
    """The array of a `.npy` file, mapped, or an open `.npz` file.

    Args:
        path: of the file; its first bytes tell which kind it is.
        what: is read from it, for messages.

    Raises:
        BuilderError: unreadable, here or while arrays are taken from the file.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) == _MAGIC:
                yield np.load(path, allow_pickle=False, mmap_mode="r")
            else:
                stream.seek(0)
                yield np.load(stream, allow_pickle=False)
    except _DAMAGED as error:
        raise BuilderError(f"{path}: cannot read {what}: {error}") from error


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    with opened_arrays(path, "arrays") as content:
        if isinstance(content, np.ndarray):
            if len(names) != 1:
                raise BuilderError(f"{path}: one array for {len(names)} inputs; use an .npz file")
            return {names[0]: content}
        members = {name: name for name in names}
        if len(names) == 1 and len(content.files) == 1:
            members = {names[0]: content.files[0]}
        missing = [name for name in members.values() if name not in content.files]
        if missing:
            raise BuilderError(
                f"{path}: no array for input {', '.join(missing)}; it has "
                f"{', '.join(content.files)}"
            )
        arrays = {name: content[member] for name, member in members.items()}
    for name, member in members.items():
        if not isinstance(arrays[name], np.ndarray):  # numpy gives bytes of what is no .npy file
            raise BuilderError(f"{path}: '{member}' in it is no array")
    return arrays
