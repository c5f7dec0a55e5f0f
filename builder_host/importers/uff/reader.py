"""UFF files: the message with its references followed, checked and bounded.

A file is one MetaGraph with one graph. Weights lie in `referenced_data`; a node's field may be a
reference to them by key. Everything stated by the file is checked before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from builder_host.errors import ImportModelError
from builder_host.importers.uff import schema
from builder_host.importers.uff.problem import NodeProblem

Array = npt.NDArray[Any]

MAX_FILE_BYTES = 1 << 31  # protobuf's own limit
MAX_NODES = 1 << 17
MAX_RANK = 8
_MAX_REFERENCES = 8  # a reference may name another one; a ring never ends
_VERSION = 1
ORDERS = "inputs_orders"
_DESCRIPTORS = ("custom", "tensorflow_extension")

NUMPY_OF_CODE: dict[int, str] = {
    0x10008: "<i1",
    0x10010: "<i2",
    0x10020: "<i4",
    0x10040: "<i8",
    0x20010: "<f2",
    0x20020: "<f4",
}


@dataclass(frozen=True, slots=True)
class UffNode:
    """One node: `fields` holds Python values, references followed.

    `source` names the node of another format that it was made of, `problem` says why it could not
    be made. Text is str, numbers int, float or bool, lists tuples, blobs bytes; element types are
    numpy names; an order list is a tuple of mappings from rank to axes.
    """

    id: str
    operation: str
    inputs: tuple[str, ...]
    fields: Mapping[str, Any]
    source: str = ""
    problem: str = ""

    @property
    def title(self) -> str:
        """For messages: `UFF node 'conv1' (Conv)`."""
        if self.source:
            return f"{self.source} ({self.operation.removeprefix('_')})"
        return f"UFF node '{self.id}' ({self.operation})"


@dataclass(frozen=True, slots=True)
class UffModel:
    """The nodes of a file by id, in file order; outputs are those that MarkOutput names."""

    label: str
    nodes: Mapping[str, UffNode]
    outputs: tuple[str, ...]


def read_uff(path: str | Path) -> UffModel:
    """Read one file.

    Raises:
        ImportModelError: unreadable, damaged, of another version, or over a limit.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ImportModelError(
                str(path), [f"has {size:,} bytes, the format ends at {MAX_FILE_BYTES:,}"]
            )
        data = path.read_bytes()
    except OSError as error:
        raise ImportModelError(str(path), [f"cannot be read: {error.strerror}"]) from error
    return parse_uff(data, str(path))


def parse_uff(data: bytes, label: str = "UFF model") -> UffModel:
    """The model in a file's bytes; `label` names it in messages. Raises ImportModelError."""
    message = schema.message_class("MetaGraph")()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ImportModelError(
            label,
            [f"the {len(data):,} bytes are no UFF file ({error}); cut short or another format?"],
        ) from error
    problems = _head_problems(message, len(data))
    if problems:
        raise ImportModelError(label, problems)
    return _model(label, message, problems)


def _head_problems(message: Any, size: int) -> list[str]:
    if len(message.graphs) != 1:
        return [
            f"holds {len(message.graphs)} graphs in {size:,} bytes, a UFF file has one; "
            "is it a UFF file (a frozen TensorFlow graph is none)?"
        ]
    problems = []
    for what in ("version", "descriptor_core_version"):
        found = getattr(message, what)
        if found != _VERSION:
            problems.append(
                f"{what} is {found}, {_VERSION} can be read; convert the model again"
                + ("; is it a UFF file (a frozen TensorFlow graph is none)?" if not found else "")
            )
    problems += [
        f"needs the descriptor '{d.id}' version {d.version}, known are {', '.join(_DESCRIPTORS)} "
        "version 1; convert the model again"
        for d in message.descriptors
        if not d.optional and (d.id not in _DESCRIPTORS or d.version != _VERSION)
    ]
    count = len(message.graphs[0].nodes)
    if count > MAX_NODES:
        problems.append(f"has {count} nodes, the limit is {MAX_NODES}")
    return problems


def _model(label: str, message: Any, problems: list[str]) -> UffModel:
    nodes: dict[str, UffNode] = {}
    outputs: list[str] = []
    for number, stored in enumerate(message.graphs[0].nodes):
        where = f"UFF node {number} '{stored.id}' ({stored.operation or 'no operation'})"
        if not stored.id or not stored.operation:
            problems.append(f"{where}: has no id or no operation; the file is damaged")
            continue
        if stored.id in nodes:
            problems.append(f"{where}: another node has this id; the file is damaged")
            continue
        try:
            fields = {
                name: _plain(value, message.referenced_data)
                for name, value in sorted(stored.fields.items())
            }
            _check_orders(fields.get(ORDERS, ()))
        except NodeProblem as problem:
            problems.append(f"{where}: {problem}")
            fields = {}
        nodes[stored.id] = UffNode(stored.id, stored.operation, tuple(stored.inputs), fields)
        if stored.operation == "MarkOutput":
            outputs += stored.inputs
    if problems:
        raise ImportModelError(label, problems)
    return UffModel(label, nodes, tuple(dict.fromkeys(outputs)))


def _plain(value: Any, referenced: Mapping[str, Any]) -> Any:
    """Python value of a Data message."""
    for _ in range(_MAX_REFERENCES):
        kind = value.WhichOneof("value")
        if kind != "ref":
            break
        if value.ref not in referenced:
            raise NodeProblem(f"refers to '{value.ref}', which the file lacks; it was cut short")
        value = referenced[value.ref]
    else:
        raise NodeProblem("its references never end; the file is damaged")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "dtype":
        return _numpy_name(found)
    if kind == "dtype_list":
        return tuple(_numpy_name(code) for code in found.val)
    if kind == "dim_orders":
        return (_orders(found),)
    if kind == "dim_orders_list":
        return tuple(_orders(one) for one in found.val)
    return tuple(found.val) if kind.endswith("_list") else found


def _numpy_name(code: int) -> str:
    if code not in NUMPY_OF_CODE:
        known = ", ".join(f"{c:#x}" for c in NUMPY_OF_CODE)
        raise NodeProblem(f"element type {code:#x} is unknown; known are {known}")
    return NUMPY_OF_CODE[code]


def _orders(message: Any) -> dict[int, tuple[int, ...]]:
    return {int(rank): tuple(axes.val) for rank, axes in message.orders.items()}


def _check_orders(orders: Any) -> None:
    if not isinstance(orders, tuple) or not all(isinstance(one, dict) for one in orders):
        raise NodeProblem(f"field '{ORDERS}' is {orders!r}, must be a list of orders")


def constant_values(dtype: str, shape: Sequence[int], values: Any) -> Array:
    """Array of a Const node's fields. Raises NodeProblem when they do not fit together."""
    if len(shape) > MAX_RANK or any(d < 0 for d in shape):
        raise NodeProblem(f"shape {tuple(shape)} of a constant is not possible")
    count = math.prod(shape)
    kind = np.dtype(dtype)
    if isinstance(values, bytes):
        if len(values) != count * kind.itemsize:
            raise NodeProblem(
                f"shape {tuple(shape)} of {kind} needs {count * kind.itemsize:,} bytes, the file "
                f"holds {len(values):,}; it is damaged"
            )
        array = np.frombuffer(values, kind)
    elif isinstance(values, tuple) and all(isinstance(v, int | float) for v in values):
        if len(values) != count:
            raise NodeProblem(
                f"shape {tuple(shape)} needs {count} values, the file holds {len(values)}"
            )
        array = np.asarray(values)
    else:
        raise NodeProblem(f"its values are {type(values).__name__}, must be bytes or numbers")
    return array.astype(kind.newbyteorder("=")).reshape(tuple(shape))
