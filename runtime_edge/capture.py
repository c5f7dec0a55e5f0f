"""A run written down: inputs, options, device, outcome; `edgeplan replay` runs it again.

A capture is a folder: `capture.json`, and a file of plain little-endian elements per tensor. It is
made before the run, so that a run that takes the process with it is captured too. A folder from
elsewhere is hostile until `read_capture` has checked it: names, sizes and hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from planformat.limits import MAX_DIM, MAX_RANK
from planformat.plan import Buffer
from runtime_edge.errors import CaptureError

MAX_BYTES = 1 << 30
"""All tensors of a capture together."""

UNFINISHED = "(unfinished)"
"""Type of the error of a run that has not ended: its process did."""

_FORMAT = 1
_INDEX = "capture.json"
_MAX_INDEX_BYTES = 1 << 20
_MAX_TENSORS = 4096
_FILE_NAME = re.compile(r"(input|output)-[0-9]{1,4}\.bin")
_ELEMENT_BYTES = {
    "bool": 1,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": bits // 8 for bits in (16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class CapturedTensor:
    """An input or output. dtype: as NumPy names it; bfloat16 is uint16. data: its elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Buffer


@dataclass(frozen=True, slots=True)
class CapturedPlan:
    """Which plan ran. path: where it was; sha256: of the file, hexadecimal."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CapturedError:
    """What the run ended with. type: name of the exception, or `UNFINISHED`."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class CapturedOptions:
    """How the plan was loaded: as the options of `edgeplan run`."""

    profile: str | None = None
    threads: int | None = None
    device: str | None = None
    allow: tuple[str, ...] = ()
    canary: bool = True


@dataclass(frozen=True, slots=True)
class Capture:
    """A run.

    Attributes:
        version: of edgeplan.
        plan, options: what ran and how.
        device_kind, fingerprint: of the device; of this machine's CPU where loading failed.
        inputs: as given.
        outputs: empty when the run failed.
        error: None when it did not.
    """

    version: str
    plan: CapturedPlan
    options: CapturedOptions
    device_kind: str
    fingerprint: Mapping[str, str]
    inputs: tuple[CapturedTensor, ...]
    outputs: tuple[CapturedTensor, ...] = field(default=())
    error: CapturedError | None = None


def captured_plan(path: str) -> CapturedPlan:
    """Name a plan file by its content. Raises OSError."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        size = 0
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return CapturedPlan(os.path.abspath(path), size, digest.hexdigest())


def write_capture(
    capture: Capture, folder: str | os.PathLike[str], *, has_inputs: bool = False
) -> None:
    """Write a capture, or write one anew whose run has ended.

    Args:
        capture: what is written.
        folder: made if missing.
        has_inputs: the folder has this capture's inputs already; they are left as they are, so that
            the capture is whole whenever the process ends.

    Raises:
        CaptureError: the tensors are too large, an element type cannot be captured, or the folder
            holds something else.
    """
    place = Path(folder)
    tensors = (*capture.inputs, *capture.outputs)
    size = sum(memoryview(tensor.data).nbytes for tensor in tensors)
    if size > MAX_BYTES:
        raise CaptureError(
            f"capture {place}: inputs and outputs have {size:,} bytes, allowed are {MAX_BYTES:,}"
        )
    for tensor in tensors:
        if tensor.dtype not in _ELEMENT_BYTES:
            raise CaptureError(
                f"capture {place}: '{tensor.name}' is of {tensor.dtype}, which no plan takes"
            )
    place.mkdir(parents=True, exist_ok=True)
    foreign = [p.name for p in place.iterdir() if not _is_own(p.name)]
    if foreign:
        raise CaptureError(
            f"capture {place}: the folder holds '{foreign[0]}', which is no part of a capture; "
            "name a folder of its own"
        )
    tree = asdict(_without_elements(capture))
    tree["format"] = _FORMAT
    for role in ("input", "output"):
        for number, tensor in enumerate(getattr(capture, role + "s")):
            name = f"{role}-{number}.bin"
            data = memoryview(tensor.data).cast("B")
            if role == "output" or not has_inputs:
                (place / name).write_bytes(data)
            row = tree[role + "s"][number]
            row |= {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
            del row["data"]
    temporary = place / f"{_INDEX}.tmp"
    # In ASCII: paths and messages need not be UTF-8.
    temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="ascii")
    temporary.replace(place / _INDEX)


def has_capture(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a capture, sound or not."""
    return (Path(folder) / _INDEX).exists()


def remove_capture(folder: str | os.PathLike[str]) -> None:
    """Remove the files of a capture, and the folder if nothing else is in it."""
    place = Path(folder)
    for path in place.iterdir():
        if _is_own(path.name):
            path.unlink()
    with contextlib.suppress(OSError):  # something else is in it
        place.rmdir()


def _without_elements(capture: Capture) -> Capture:
    def bare(tensors: Sequence[CapturedTensor]) -> tuple[CapturedTensor, ...]:
        return tuple(replace(tensor, data=b"") for tensor in tensors)

    return replace(capture, inputs=bare(capture.inputs), outputs=bare(capture.outputs))


def read_capture(folder: str | os.PathLike[str]) -> Capture:
    """Read and check a capture.

    Raises:
        CaptureError: a file is missing, too large, damaged or not what the index says.
    """
    place = Path(folder)
    try:
        tree = json.loads(_content(place / _INDEX, _MAX_INDEX_BYTES))
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"capture {place}: {_INDEX}: {error}") from error
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        found = tree.get("format") if isinstance(tree, dict) else None
        raise CaptureError(
            f"capture {place}: {_INDEX}: format is {found!r:.40}, this version reads {_FORMAT}"
        )
    left = [MAX_BYTES]
    try:
        plan, options = tree["plan"], tree["options"]
        return Capture(
            version=_text(tree["version"]),
            plan=CapturedPlan(
                _text(plan["path"]), _whole(plan["num_bytes"], 1 << 62), _text(plan["sha256"])
            ),
            options=CapturedOptions(
                profile=None if options["profile"] is None else _text(options["profile"]),
                threads=None if options["threads"] is None else _whole(options["threads"], 1024),
                device=None if options["device"] is None else _text(options["device"]),
                allow=tuple(_text(name) for name in options["allow"]),
                canary=options["canary"] is True,
            ),
            device_kind=_text(tree["device_kind"]),
            fingerprint={_text(k): _text(v) for k, v in tree["fingerprint"].items()},
            inputs=_tensors(place, tree["inputs"], left),
            outputs=_tensors(place, tree["outputs"], left),
            error=None
            if tree["error"] is None
            else CapturedError(_text(tree["error"]["type"]), _text(tree["error"]["message"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
        raise CaptureError(f"capture {place}: {_INDEX}: {reason}") from error


def _tensors(place: Path, rows: Any, left: list[int]) -> tuple[CapturedTensor, ...]:
    if not isinstance(rows, list) or len(rows) > _MAX_TENSORS:
        raise TypeError(f"tensors are no list of at most {_MAX_TENSORS:,}")
    return tuple(_tensor(place, row, left) for row in rows)


def _tensor(place: Path, row: Any, left: list[int]) -> CapturedTensor:
    name, dtype, file = _text(row["name"]), _text(row["dtype"]), _text(row["file"])
    shape = tuple(_whole(dim, MAX_DIM) for dim in row["shape"])
    if dtype not in _ELEMENT_BYTES or len(shape) > MAX_RANK:
        raise ValueError(f"tensor {name!r:.80} is of type {dtype!r:.40} and rank {len(shape)}")
    if not _FILE_NAME.fullmatch(file):
        raise ValueError(f"tensor {name!r:.80} lies in a file of the name {file!r:.80}")
    size = prod(shape) * _ELEMENT_BYTES[dtype]
    if size > left[0]:
        raise ValueError(f"the tensors have more than {MAX_BYTES:,} bytes")
    left[0] -= size
    data = _content(place / file, size)
    if len(data) != size:
        raise ValueError(f"{file} has {len(data):,} bytes, tensor {name!r:.80} needs {size:,}")
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ValueError(f"{file}: its SHA-256 is not the one in the index; it was changed")
    return CapturedTensor(name, dtype, shape, data)


def _content(path: Path, most: int) -> bytes:
    """A regular file of at most so many bytes. Raises CaptureError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise CaptureError(f"capture: {path} is no regular file")
            if facts.st_size > most:
                raise CaptureError(
                    f"capture: {path} has {facts.st_size:,} bytes, expected at most {most:,}"
                )
            return file.read(most + 1)
    except OSError as error:
        raise CaptureError(f"capture: {path} cannot be read: {error}") from error


def _is_own(name: str) -> bool:
    return name in (_INDEX, f"{_INDEX}.tmp") or _FILE_NAME.fullmatch(name) is not None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise TypeError(f"{value!r:.40} is not a whole number from 0 to {most:,}")
    return value
