"""Errors of boards.

BoardError
├── BoardSpecError      a board file that does not exist or breaks the schema
├── LinkError           the link to a board cannot be made or used
│   ├── LinkAddressError    an address that names no link
│   ├── LinkLostError       the other end does not answer any more
│   ├── LinkRefusedError    the other end refused: version, key, or it is busy
│   └── LinkProtocolError   the other end broke PROTOCOL.md
├── CommandFailedError  the board could not do what it was asked to
└── StoreError          the plan store refuses, or its files are damaged
    └── ReleaseRefusedError   a release that may not become active: downgrade, expired, marked bad
"""

from __future__ import annotations


class BoardError(Exception):
    """Any reason why a board cannot be used."""


class BoardSpecError(BoardError):
    """A board file that does not exist or breaks the schema; the text names file and key."""


class LinkError(BoardError):
    """The link to a board cannot be made or used."""


class LinkAddressError(LinkError):
    """An address that names no link; the text shows the known forms."""


class LinkLostError(LinkError):
    """The other end does not answer any more; the text says what was tried."""


class LinkRefusedError(LinkError):
    """The other end refused the connection: version, key, or it is busy."""


class LinkProtocolError(LinkError):
    """The other end sent something that PROTOCOL.md does not allow."""


class CommandFailedError(BoardError):
    """The board could not do what it was asked to.

    Attributes:
        code: short name of the reason, listed in PROTOCOL.md.
    """

    def __init__(self, text: str, code: str = "failed") -> None:
        """Take the text for people and the reason's short name."""
        super().__init__(text)
        self.code = code


class StoreError(BoardError):
    """The plan store refuses, or its files are damaged; the text names the file."""


class ReleaseRefusedError(StoreError):
    """A release that may not become active: downgrade, expired, or marked bad."""
