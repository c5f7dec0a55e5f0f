"""Fields of a request's JSON, checked: what is wrong raises `RequestError` 400 with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime_edge.serve.errors import RequestError

MAX_RANK = 16
MAX_EXTENT = 1 << 40


def parameters_of(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The object `parameters` of an entry, empty when there is none; its values are scalars."""
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(400, f"{where}: 'parameters' must be an object")
    for name, value in parameters.items():
        if not isinstance(value, (str, int, float, bool)):
            raise RequestError(
                400, f"{where}: parameter {quoted(name)} must be a string, number or boolean"
            )
    return parameters


def objects_of(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects."""
    entries = content.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RequestError(400, f"'{name}' must be a list of objects")
    return entries


def shape_of(entry: dict[str, Any], where: str) -> tuple[int, ...]:
    """A tensor's shape."""
    shape = entry.get("shape")
    check: Callable[[Any], bool] = lambda v: type(v) is int and 0 <= v <= MAX_EXTENT  # noqa: E731
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(check, shape)):
        raise RequestError(
            400,
            f"{where}: 'shape' must be a list of at most {MAX_RANK} whole numbers from 0 to "
            f"{MAX_EXTENT:,}",
        )
    return tuple(shape)


def whole_number(parameters: dict[str, Any], name: str, most: int) -> int:
    """A parameter from 0 to `most`, 0 when it is not given."""
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise RequestError(
            400, f"parameter '{name}' is {value!r:.40}, it must be a whole number up to {most:,}"
        )
    return value


def flag(parameters: dict[str, Any], name: str, where: str) -> bool:
    """A parameter that is true or false, false when it is not given."""
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(400, f"{where}: parameter '{name}' must be true or false")
    return value


def json_kind(value: Any) -> str:
    """What a value is called in JSON."""
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )


def quoted(value: Any) -> str:
    """A value for a message, cut short."""
    return f"{value!r:.80}"
