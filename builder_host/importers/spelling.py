"""Names that a misspelt one may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; nearest: a, b`, by spelling without regard to case; empty when nothing is near."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.6)
    return f"; nearest: {', '.join(by_lower[key] for key in found)}" if found else ""
