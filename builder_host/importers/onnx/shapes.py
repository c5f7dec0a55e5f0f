"""Shapes of the network inputs: what the model states, completed by `--shapes`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from builder_host.errors import NetworkError
from builder_host.importers.onnx.weights import element_type
from planformat.datatypes import DataType

_LOGGER = logging.getLogger(__name__)
MAX_EXTENT = 2**31 - 1  # of one dimension, and of elements in one input


@dataclass(frozen=True, slots=True)
class InputType:
    """Name, static shape and element type of a network input."""

    name: str
    shape: tuple[int, ...]
    dtype: DataType


def bind_inputs(
    inputs: Sequence[onnx.ValueInfoProto], shapes: Mapping[str, Sequence[int]]
) -> tuple[list[InputType], list[str]]:
    """Static type of every input, and the problems found.

    A dimension is unknown when it has a name, is absent, or is not positive. `shapes` fixes it, and
    with it every dimension of that name in other inputs. When nothing but one batch dimension (the
    first of each input) is unknown, it becomes 1 and a note is logged.

    Args:
        inputs: graph inputs without those that are initialisers.
        shapes: wanted shape by input name.
    """
    problems = [
        f"--shapes names '{name}', which is no input of the model; its inputs are: "
        + (", ".join(i.name for i in inputs) or "none")
        for name in shapes
        if name not in {i.name for i in inputs}
    ]
    stated: dict[str, list[int | str]] = {}
    for info in inputs:
        try:
            stated[info.name] = _stated_dims(info)
        except NetworkError as error:
            problems.append(str(error))
    symbols: dict[str, int] = {}
    for name, dims in stated.items():
        if name in shapes:
            problems += _bind_stated(name, dims, shapes[name], symbols)
    for dims in stated.values():
        dims[:] = [symbols.get(d, d) if isinstance(d, str) else d for d in dims]
    _default_batch(stated)
    bound: list[InputType] = []
    for info in inputs:
        dims = stated.get(info.name, [])
        named = [(i, d) for i, d in enumerate(dims) if isinstance(d, str)]
        unknown = [f"{i} ('{d}')" if d else str(i) for i, d in named]
        if unknown:
            example = "x".join("N" if isinstance(d, str) else str(d) for d in dims)
            problems.append(
                f"input '{info.name}': dimension {', '.join(unknown)} is not known; "
                f"state it with --shapes {info.name}:{example}"
            )
        elif info.name in stated:
            code = info.type.tensor_type.elem_type
            try:
                dtype = element_type(code, f"input '{info.name}'")
            except NetworkError as error:
                problems.append(str(error))
                continue
            shape = tuple(d for d in dims if isinstance(d, int))
            if math.prod(shape) > MAX_EXTENT:
                text = "x".join(map(str, shape))
                problems.append(
                    f"input '{info.name}': shape {text} has {math.prod(shape):,} elements, the "
                    f"limit is {MAX_EXTENT:,}"
                )
            bound.append(InputType(info.name, shape, dtype))
    return bound, problems


def _stated_dims(info: onnx.ValueInfoProto) -> list[int | str]:
    """Dimensions as the file states them: a positive extent, or a text for an unknown one."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise NetworkError(
            f"input '{info.name}' is a {kind or 'value without a type'}; inputs must be tensors"
        )
    if not info.type.tensor_type.HasField("shape"):
        # Unknown rank: only --shapes can tell. A list cannot say so; one unnamed dimension does.
        return [""]
    dims: list[int | str] = []
    for dim in info.type.tensor_type.shape.dim:
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            if dim.dim_value > MAX_EXTENT:
                raise NetworkError(
                    f"input '{info.name}': dimension {dim.dim_value:,} is over the limit of "
                    f"{MAX_EXTENT:,}"
                )
            dims.append(int(dim.dim_value))
        else:
            dims.append(dim.dim_param)
    return dims


def _bind_stated(
    name: str, dims: list[int | str], wanted: Sequence[int], symbols: dict[str, int]
) -> list[str]:
    shape = tuple(int(d) for d in wanted)
    text = "x".join(map(str, shape))
    if any(not 0 < d <= MAX_EXTENT for d in shape):
        return [f"--shapes {name}:{text}: every dimension must be from 1 to {MAX_EXTENT:,}"]
    if dims == [""]:
        dims[:] = shape
        return []
    stated = "x".join(str(d) or "?" for d in dims)
    if len(shape) != len(dims):
        return [
            f"--shapes {name}:{text} has {len(shape)} dimensions, the model's input has "
            f"{len(dims)} ({stated})"
        ]
    problems = []
    for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True)):
        fixed = symbols.setdefault(dim, extent) if isinstance(dim, str) and dim else dim
        if isinstance(fixed, int) and fixed != extent:
            problems.append(
                f"--shapes {name}:{text}: dimension {axis} is {extent} but the model "
                f"({stated}) fixes it to {fixed}"
            )
    dims[:] = shape
    return problems


def _default_batch(stated: dict[str, list[int | str]]) -> None:
    unknown = [
        (n, i, d) for n, dims in stated.items() for i, d in enumerate(dims) if isinstance(d, str)
    ]
    lone = len({d for _, _, d in unknown}) == 1 and all(
        i == 0 and len(stated[n]) > 1 for n, i, _ in unknown
    )
    if not lone:
        return
    for name, axis, dim in unknown:
        stated[name][axis] = 1
        _LOGGER.warning(
            "input '%s': batch dimension %s is not known and becomes 1; --shapes sets another",
            name,
            f"'{dim}'" if dim else "0",
        )
