"""Which class each sample has: label files in the usual forms, or one folder per class."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from builder_host.calibration.batches import ArrayFile, PictureFolder, opened_arrays
from builder_host.errors import BuilderError

_MAX_LABEL_BYTES = 256 << 20
_SYNSET = re.compile(r"n\d{8}")
_PICTURE_HEADS = frozenset(
    {"file", "filename", "file_name", "id", "image", "image_id", "imageid", "name", "path"}
)
_LABEL_HEADS = frozenset(
    {"category", "class", "class_id", "label", "label_id", "predictionstring", "synset", "target"}
)


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Names of classes, to read labels that are no numbers.

    Attributes:
        rows: line or list entry per class, in the order of the network's scores.
        numbers: class by whole line, by WordNet id (`n01440764`), by the line without it, and by
            each of its words between commas; -1 where several classes share a name.
    """

    rows: tuple[str, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)

    def number_of(self, label: str, where: str, offset: int = 0) -> int:
        """The class that a label names.

        Args:
            label: a number, to which `offset` is added, or a name; of several words the first
                may do alone (`n03995372 85 1 499 272`: a class and its boxes).
            where: file and line, for messages.
            offset: added to numbers.

        Raises:
            BuilderError: no number and no class's name, or the name of several.
        """
        label = label.strip()
        for text in (label, label.partition(" ")[0]):
            if text.isascii() and text.isdigit() and len(text) < 10:
                return int(text) + offset
            number = self.numbers.get(text)
            if number is not None and number >= 0:
                return number
            if number is not None:
                raise BuilderError(f"{where}: '{text}' names several classes; use their numbers")
        raise BuilderError(f"{where}: class '{label[:60]}' is no number and not in --classes")


def class_names(rows: Sequence[str]) -> ClassNames:
    """Names from lines such as `n01440764 tench, Tinca tinca` or `tench`."""
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows):
        first, _, rest = row.partition(" ")
        names = {row}
        if _SYNSET.fullmatch(first):
            names |= {first, rest}
            row = rest
        names |= {part.strip() for part in row.split(",")}
        for name in names - {""}:
            numbers[name] = -1 if name in numbers else number
    return ClassNames(tuple(rows), numbers)


def load_classes(path: str | os.PathLike[str]) -> ClassNames:
    """Names of classes: one per line, a JSON list, or a JSON object by number. Raises BuilderError.

    In JSON a class may have several names: `{"0": ["n01440764", "tench"], ...}`.
    """
    text = _text(Path(path), "classes")
    if not str(path).endswith(".json"):
        return class_names(text.splitlines())
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuilderError(f"{path}: cannot read the classes: {error}") from error
    if isinstance(rows, dict) and sorted(rows) == sorted(map(str, range(len(rows)))):
        rows = [rows[str(number)] for number in range(len(rows))]
    lines = [" ".join(row) if _is_texts(row) else row for row in rows] if _is_list(rows) else []
    if not _is_texts(lines) or not lines:
        raise BuilderError(f"{path}: expected a list of class names, or an object by class number")
    return class_names(lines)


def labels_of(
    samples: ArrayFile | PictureFolder,
    path: str | os.PathLike[str],
    classes: ClassNames | None = None,
    *,
    offset: int = 0,
) -> list[int]:
    """Class per sample, in the order of the samples.

    Args:
        samples: pictures are looked up by their path in the folder, the end of it, or their file
            name, with or without its ending; arrays take labels in order.
        path: `.npy` or `.npz` of integers in order; JSON object of picture to class; text or CSV
            with a picture and its class per line, with or without a header; or a class per line,
            in the order of the samples.
        classes: where labels are names.
        offset: added to labels that are numbers.

    Raises:
        BuilderError: unreadable, a sample without a label, or a class that is not known.
    """
    file, known = Path(path), classes or ClassNames()
    if file.suffix in (".npy", ".npz"):
        return [value + offset for value in _array_labels(file, len(samples))]
    text = _text(file, "labels")
    if file.suffix == ".json":
        table = _json_table(text, file)
    else:
        rows = _rows(text, file)
        if isinstance(samples, ArrayFile) or all(len(cells) == 1 for _, cells in rows):
            return _in_order(rows, samples, file, known, offset)
        table = _line_table(rows, file)
    if isinstance(samples, ArrayFile):
        raise BuilderError(f"{path}: labels by name are for pictures; arrays take them in order")
    shared = Counter(_short_names(samples.paths))
    found = []
    for picture in samples.paths:
        label, name = _label_of(picture, table)
        if label is None:
            raise BuilderError(f"{path}: no label for picture '{picture.name}'")
        if shared[name] > 1 and name in _short_names([picture]):
            raise BuilderError(
                f"{path}: '{name}' is the name of {shared[name]} pictures; name them with their "
                "folder"
            )
        found.append(known.number_of(label, f"{path}: '{picture.name}'", offset))
    return found


def folder_labels(
    samples: ArrayFile | PictureFolder,
    classes: ClassNames | None = None,
    *,
    num_classes: int,
    offset: int = 0,
) -> list[int]:
    """The class of each picture by the folder that it lies in.

    Folders are named by number or as `classes` has them; without, they are the network's classes
    in alphabetical order.

    Args:
        samples: pictures in one folder per class.
        classes: names of the classes.
        num_classes: scores that the network gives.
        offset: added to numbers.

    Raises:
        BuilderError: arrays, a picture outside of the folders, or a folder that is no class.
    """
    if isinstance(samples, ArrayFile):
        raise BuilderError("arrays need --labels: only pictures have their class as a folder")
    folders = []
    for path in samples.paths:
        parts = path.relative_to(samples.folder).parts
        if len(parts) < 2:
            raise BuilderError(
                f"{path}: not in the folder of a class; give --labels, or a folder per class"
            )
        folders.append(parts[0])
    names = sorted(set(folders))
    if classes is None and not all(name.isascii() and name.isdigit() for name in names):
        if len(names) != num_classes:
            raise BuilderError(
                f"{samples.folder}: {len(names)} folders for {num_classes} classes; name the "
                "classes with --classes"
            )
        return [names.index(folder) for folder in folders]
    known = classes or ClassNames()
    numbers = {n: known.number_of(n, f"{samples.folder}: folder '{n}'", offset) for n in names}
    return [numbers[folder] for folder in folders]


# --- label files -------------------------------------------------------------------------------

_Row = tuple[int, list[str]]  # line number, cells


def _text(file: Path, what: str) -> str:
    try:
        if file.stat().st_size > _MAX_LABEL_BYTES:
            raise BuilderError(f"{file}: too large for a file of {what}")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BuilderError(f"{file}: cannot read the {what}: {error}") from error


def _rows(text: str, file: Path) -> list[_Row]:
    """Cells of each line that is not empty or a comment."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if "\t" in line:
            cells = line.split("\t")
        elif file.suffix == ".csv" or "," in line:
            try:
                cells = next(csv.reader([line], skipinitialspace=True))
            except csv.Error as error:
                raise BuilderError(f"{file}:{number}: {error}") from error
        else:
            cells = line.rsplit(maxsplit=1)
        found.append((number, [cell.strip() for cell in cells]))
    return found


def _in_order(
    rows: Sequence[_Row],
    samples: ArrayFile | PictureFolder,
    file: Path,
    classes: ClassNames,
    offset: int,
) -> list[int]:
    labels = [(number, cell) for number, cells in rows for cell in cells if cell]
    may_be_longer = isinstance(samples, ArrayFile) or samples.is_limited
    if len(labels) < len(samples) or (len(labels) > len(samples) and not may_be_longer):
        raise BuilderError(
            f"{file}: {len(labels)} labels for {len(samples)} samples; expected a class per line "
            "in their order, or a picture and its class per line"
        )
    return [
        classes.number_of(label, f"{file}:{number}", offset)
        for number, label in labels[: len(samples)]
    ]


def _line_table(rows: Sequence[_Row], file: Path) -> dict[str, str]:
    name_at, label_at = 0, 1
    heads = [cell.lower() for cell in rows[0][1]]
    if _PICTURE_HEADS.intersection(heads) and _LABEL_HEADS.intersection(heads):
        name_at = next(i for i, head in enumerate(heads) if head in _PICTURE_HEADS)
        label_at = next(i for i, head in enumerate(heads) if head in _LABEL_HEADS)
        rows = rows[1:]
    table: dict[str, str] = {}
    for number, cells in rows:
        if len(cells) <= max(name_at, label_at) or not cells[name_at] or not cells[label_at]:
            line = " ".join(cells)
            raise BuilderError(f"{file}:{number}: '{line[:80]}' is not a picture and its class")
        name, label = cells[name_at].replace("\\", "/").removeprefix("./"), cells[label_at]
        if table.get(name, label) != label:
            raise BuilderError(
                f"{file}:{number}: '{name[:80]}' is listed twice, as '{table[name][:40]}' and "
                f"'{label[:40]}'"
            )
        table[name] = label
    return table


def _json_table(text: str, file: Path) -> dict[str, str]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuilderError(f"{file}: cannot read the labels: {error}") from error
    if not isinstance(table, dict):
        raise BuilderError(f"{file}: expected an object of picture name to class")
    return {str(name): str(label) for name, label in table.items()}


def _array_labels(file: Path, count: int) -> list[int]:
    with opened_arrays(file, "the labels") as content:
        if not isinstance(content, np.ndarray):
            if not content.files:
                raise BuilderError(f"{file}: holds no arrays; expected labels")
            content = content["labels" if "labels" in content.files else content.files[0]]
    values = np.asarray(content).reshape(-1)
    if values.dtype.kind not in "iu" or len(values) < count:
        raise BuilderError(
            f"{file}: {len(values)} values of {values.dtype} for {count} samples; expected "
            "one integer each"
        )
    return [int(v) for v in values[:count]]


def _label_of(picture: Path, table: Mapping[str, str]) -> tuple[str | None, str]:
    """The label of a picture and the name that it was found under."""
    tails = ["/".join(picture.parts[-count:]) for count in range(len(picture.parts), 0, -1)]
    for name in (picture.as_posix(), *tails):
        for key in (name, PurePath(name).with_suffix("").as_posix()):
            if key in table:
                return table[key], key
    return None, ""


def _short_names(pictures: Sequence[Path]) -> list[str]:
    """Names without folders, with and without their endings."""
    return [name for picture in pictures for name in (picture.name, picture.stem)]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
