"""Index arithmetic of loop nests: linear forms over loop variables, simplified by their ranges.

Beside loop variables a form may hold floor divisions, remainders, minima and values that are only
known at run time. All divisors are positive constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable: 0 <= value < extent. Compared by name and extent."""

    name: str
    extent: int


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """`x // divisor`."""

    x: Index
    divisor: int


@dataclass(frozen=True, slots=True)
class Modulo:
    """`x % divisor`, never negative."""

    x: Index
    divisor: int


@dataclass(frozen=True, slots=True)
class Minimum:
    """The smaller of two."""

    a: Index
    b: Index


@dataclass(frozen=True, slots=True)
class Dynamic:
    """An integer scalar of the loop nest (`loop_nest.Value`) with low <= value <= high."""

    value: Any
    low: int
    high: int


Atom = Var | FloorDiv | Modulo | Minimum | Dynamic


@dataclass(frozen=True, slots=True)
class Index:
    """const + sum of coefficient * atom; terms are in order of first use."""

    terms: tuple[tuple[Atom, int], ...] = ()
    const: int = 0

    def __add__(self, other: Index | Var | int) -> Index:
        """Sum."""
        right = as_index(other)
        sums = dict(self.terms)
        for atom, factor in right.terms:
            sums[atom] = sums.get(atom, 0) + factor
        return Index(tuple((a, f) for a, f in sums.items() if f), self.const + right.const)

    def __sub__(self, other: Index | Var | int) -> Index:
        """Difference."""
        return self + as_index(other) * -1

    def __mul__(self, factor: int) -> Index:
        """Product with a constant."""
        if factor == 0:
            return Index()
        return Index(tuple((a, f * factor) for a, f in self.terms), self.const * factor)

    def __floordiv__(self, divisor: int) -> Index:
        """Floor division by a positive constant."""
        if divisor == 1:
            return self
        whole, rest = self._split(divisor)
        low, high = rest.bounds()
        if low >= 0 and high < divisor:
            return whole
        parted = rest._parted(divisor)
        if parted is not None:
            return whole + parted[0] // divisor
        common = math.gcd(divisor, *(f for _, f in rest.terms))
        inner = Index(tuple((a, f // common) for a, f in rest.terms), rest.const // common)
        reduced = divisor // common
        if reduced == 1:
            return whole + inner
        if inner.const == 0 and len(inner.terms) == 1 and inner.terms[0][1] == 1:
            atom = inner.terms[0][0]
            if isinstance(atom, FloorDiv):
                return whole + atom.x // (atom.divisor * reduced)
        return whole + Index(((FloorDiv(inner, reduced), 1),))

    def __mod__(self, divisor: int) -> Index:
        """Remainder of the floor division by a positive constant."""
        if divisor == 1:
            return Index()
        _, rest = self._split(divisor)
        low, high = rest.bounds()
        if low >= 0 and high < divisor:
            return rest
        parted = rest._parted(divisor)
        if parted is not None:
            return parted[0] % divisor + parted[1]
        common = math.gcd(divisor, *(f for _, f in rest.terms))
        inner = Index(tuple((a, f // common) for a, f in rest.terms), rest.const // common)
        reduced = divisor // common
        if reduced == 1:
            return Index((), rest.const % common)
        atom: Index = Index(((Modulo(inner, reduced), 1),))
        return atom * common + rest.const % common

    def _split(self, divisor: int) -> tuple[Index, Index]:
        """(whole, rest) with self = whole * divisor + rest, rest without multiples of divisor."""
        whole = Index(
            tuple((a, f // divisor) for a, f in self.terms if f % divisor == 0),
            self.const // divisor,
        )
        rest = Index(tuple((a, f) for a, f in self.terms if f % divisor != 0), self.const % divisor)
        return whole, rest

    def _parted(self, divisor: int) -> tuple[Index, Index] | None:
        """(high, low): low stays below a common divisor of high and `divisor`, so never carries."""
        terms = sorted(self.terms, key=lambda term: abs(term[1]))
        for number in range(1, len(terms)):
            step = math.gcd(divisor, *(f for _, f in terms[number:]))
            low = Index(tuple(terms[:number]), self.const % step)
            first, last = low.bounds()
            if first >= 0 and last < step:
                return Index(tuple(terms[number:]), self.const - low.const), low
        return None

    def bounds(self) -> tuple[int, int]:
        """Smallest and largest possible value (inclusive; not always reached)."""
        low = high = self.const
        for atom, factor in self.terms:
            a, b = _atom_bounds(atom)
            low += min(a * factor, b * factor)
            high += max(a * factor, b * factor)
        return low, high

    def variables(self) -> frozenset[Var]:
        """All loop variables, those inside divisions and run-time values included."""
        found: set[Var] = set()
        for atom, _ in self.terms:
            found |= _atom_variables(atom)
        return frozenset(found)

    def coefficient(self, var: Var) -> int | None:
        """Factor of a variable, or None when it (also) occurs inside another atom."""
        if any(var in _atom_variables(a) for a, _ in self.terms if not isinstance(a, Var)):
            return None
        return dict(self.terms).get(var, 0)

    def substitute(self, replacements: Mapping[Var, Index]) -> Index:
        """Replace variables, and simplify again."""
        result = Index((), self.const)
        for atom, factor in self.terms:
            result = result + _substituted(atom, replacements) * factor
        return result


def as_index(value: Index | Var | int) -> Index:
    """A linear form of a variable or an integer."""
    if isinstance(value, Index):
        return value
    return Index(((value, 1),)) if isinstance(value, Var) else Index((), value)


def minimum(a: Index | int, b: Index | int) -> Index:
    """The smaller of two forms."""
    left, right = as_index(a), as_index(b)
    if left.bounds()[1] <= right.bounds()[0]:
        return left
    if right.bounds()[1] <= left.bounds()[0]:
        return right
    return Index(((Minimum(left, right), 1),))


def dot(indices: Iterable[Index], strides: Iterable[int]) -> Index:
    """Sum of index * stride."""
    total = Index()
    for index, stride in zip(indices, strides, strict=True):
        total = total + index * stride
    return total


def _atom_bounds(atom: Atom) -> tuple[int, int]:
    match atom:
        case Var(extent=extent):
            return 0, max(extent - 1, 0)
        case FloorDiv(x=x, divisor=divisor):
            low, high = x.bounds()
            return low // divisor, high // divisor
        case Modulo(divisor=divisor):
            return 0, divisor - 1
        case Minimum(a=a, b=b):
            (a0, a1), (b0, b1) = a.bounds(), b.bounds()
            return min(a0, b0), min(a1, b1)
        case Dynamic(low=low, high=high):
            return low, high


def _atom_variables(atom: Atom) -> frozenset[Var]:
    match atom:
        case Var():
            return frozenset({atom})
        case FloorDiv(x=x) | Modulo(x=x):
            return x.variables()
        case Minimum(a=a, b=b):
            return a.variables() | b.variables()
        case Dynamic(value=value):
            found: frozenset[Var] = value.variables()
            return found


def _substituted(atom: Atom, replacements: Mapping[Var, Index]) -> Index:
    match atom:
        case Var():
            return replacements.get(atom, as_index(atom))
        case FloorDiv(x=x, divisor=divisor):
            return x.substitute(replacements) // divisor
        case Modulo(x=x, divisor=divisor):
            return x.substitute(replacements) % divisor
        case Minimum(a=a, b=b):
            return minimum(a.substitute(replacements), b.substitute(replacements))
        case Dynamic(value=value, low=low, high=high):
            return Index(((Dynamic(value.substitute(replacements), low, high), 1),))
