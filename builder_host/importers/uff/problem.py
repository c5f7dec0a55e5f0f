"""Why a node cannot be imported; collected into one report per model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NodeProblem(Exception):  # noqa: N818 - becomes a line of ImportModelError, never leaves
    """A node breaks a rule of UFF or of this importer; the text says what and what to do."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; nearest: a, b`, by spelling without regard to case; empty when nothing is near."""
    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(name.lower().lstrip("_"), list(by_lower), n=count, cutoff=0.6)
    return f"; nearest: {', '.join(by_lower[key] for key in found)}" if found else ""
