"""Why a node cannot be imported; collected into one report per model."""

from __future__ import annotations


class NodeProblem(Exception):  # noqa: N818 - becomes a line of ImportModelError, never leaves
    """A node breaks a rule of UFF or of this importer; the text says what and what to do."""
