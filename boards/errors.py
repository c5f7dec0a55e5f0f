"""Errors of boards.

BoardError
└── BoardSpecError    a board file that does not exist or breaks the schema
"""

from __future__ import annotations


class BoardError(Exception):
    """Any reason why a board cannot be used."""


class BoardSpecError(BoardError):
    """A board file that does not exist or breaks the schema; the text names file and key."""
