"""Index arithmetic: simplified forms have the value of the plain ones everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from builder_host.codegen.indices import (
    Atom,
    FloorDiv,
    Index,
    Minimum,
    Modulo,
    Var,
    as_index,
    minimum,
)

A, B, C = Var("a", 5), Var("b", 16), Var("c", 3)


def value_of(index: Index, point: dict[Var, int]) -> int:
    def atom(item: Atom) -> int:
        match item:
            case Var():
                return point[item]
            case FloorDiv(x=x, divisor=divisor):
                return value_of(x, point) // divisor
            case Modulo(x=x, divisor=divisor):
                return value_of(x, point) % divisor
            case Minimum(a=a, b=b):
                return min(value_of(a, point), value_of(b, point))
        raise AssertionError(item)

    return index.const + sum(atom(item) * factor for item, factor in index.terms)


FORMS: list[tuple[Index, Callable[[int, int, int], int]]] = [
    ((as_index(A) * 16 + B) // 16, lambda a, b, c: a),
    ((as_index(A) * 16 + B) % 16, lambda a, b, c: b),
    ((as_index(A) * 20 + B + 7) // 8, lambda a, b, c: (20 * a + b + 7) // 8),
    ((as_index(A) * 20 + B + 7) % 8, lambda a, b, c: (20 * a + b + 7) % 8),
    ((as_index(A) * 6 + as_index(C) * 2 + 1) % 4, lambda a, b, c: (6 * a + 2 * c + 1) % 4),
    ((as_index(A) * 6 + as_index(C) * 2 - 5) // 4, lambda a, b, c: (6 * a + 2 * c - 5) // 4),
    (as_index(A) - as_index(B) - 3, lambda a, b, c: a - b - 3),
    ((as_index(A) - 3) // 2, lambda a, b, c: (a - 3) // 2),
    ((as_index(A) * 7 + B) // 3 // 5, lambda a, b, c: (7 * a + b) // 15),
    (minimum(as_index(A) * 4, as_index(B)) + 2, lambda a, b, c: min(4 * a, b) + 2),
    (minimum(as_index(A), 9), lambda a, b, c: a),
    ((as_index(A) * 8 + as_index(C) + 24) // 16, lambda a, b, c: (8 * a + c + 24) // 16),
    ((as_index(A) * 8 + as_index(C) + 24) % 16, lambda a, b, c: (8 * a + c + 24) % 16),
    ((as_index(A) * 12 + as_index(C) - 7) // 16, lambda a, b, c: (12 * a + c - 7) // 16),
    ((as_index(A) * 12 + as_index(C) - 7) % 16, lambda a, b, c: (12 * a + c - 7) % 16),
    (as_index(A) * 0, lambda a, b, c: 0),
]


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_forms_keep_their_value_and_their_bounds(number: int) -> None:
    index, exact = FORMS[number]
    low, high = index.bounds()
    for a, b, c in itertools.product(range(5), range(16), range(3)):
        found = value_of(index, {A: a, B: b, C: c})
        assert found == exact(a, b, c)
        assert low <= found <= high


def test_blocks_cancel_without_divisions() -> None:
    channel = as_index(A) * 16 + B
    assert channel // 16 == as_index(A)
    assert channel % 16 == as_index(B)
    assert (channel + 32) // 16 == as_index(A) + 2


def test_substitution_simplifies_again() -> None:
    channel = Var("channel", 80)
    index = as_index(channel) // 16 * 100 + as_index(channel) % 16
    assert index.coefficient(channel) is None
    found = index.substitute({channel: as_index(A) * 16 + B})
    assert found == as_index(A) * 100 + B
    assert found.coefficient(A) == 100
    assert found.variables() == {A, B}
