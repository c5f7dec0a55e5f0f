"""Fields of the JSON in section DETAILS, each checked: what is not as expected is named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_COUNT = (1 << 63) - 1


def field(tree: Any, name: str) -> Any:
    """A value of an object. Raises TypeError or ValueError, as all functions here do."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"expected an object with '{name}'")
    if name not in tree:
        raise ValueError(f"the field '{name}' is missing")
    return tree[name]


def items(value: Any) -> Sequence[Any]:
    """A list."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def text(tree: Any, name: str) -> str:
    """A text of an object."""
    value = field(tree, name)
    if not isinstance(value, str):
        raise TypeError(f"'{name}' is {type(value).__name__}, not a text")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def magnitude(value: Any, what: str) -> float:
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise TypeError(f"{what} is {value!r}, not a finite number of at least 0")
    return float(value)


def count(tree: Any, name: str) -> int:
    """A whole number of an object."""
    return whole(field(tree, name), f"'{name}'")


def whole(value: Any, what: str) -> int:
    """A whole number from 0 to 2^63 - 1."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 0 <= value <= _MAX_COUNT:
        raise TypeError(f"{what} is {value!r:.40}, not a whole number from 0 to 2^63 - 1")
    return int(value)
