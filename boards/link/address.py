"""Addresses of boards: `serial:///dev/ttyUSB0?baud=921600`, `tcp://host:port`, `ssh://user@host`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from boards.errors import LinkAddressError

DEFAULT_TCP_PORT = 7417
_FORMS = (
    "serial:///dev/ttyUSB0?baud=921600, tcp://HOST:PORT, ssh://USER@HOST, store:///var/lib/edgeplan"
)
_OPTIONS: Mapping[str, frozenset[str]] = {
    "serial": frozenset({"baud", "base", "stop", "start"}),
    "tcp": frozenset(),
    "ssh": frozenset({"command", "store"}),
    "store": frozenset(),
}


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """Where a board is reached.

    Attributes:
        text: as it was given; scheme: `serial`, `tcp`, `ssh` or `store`.
        host, port, user: of tcp and ssh; port None: the default.
        path: device or folder.
        options: what stands behind the `?`.
    """

    text: str
    scheme: str
    host: str = ""
    port: int | None = None
    user: str = ""
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number.

        Raises:
            LinkAddressError: it is none.
        """
        text = self.options.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise LinkAddressError(f"{self.text}: {name} is '{text}'; expected a whole number")
        return int(text)


def parse_address(text: str) -> LinkAddress:
    """Take an address apart.

    Raises:
        LinkAddressError: no such scheme or option, or a part is missing.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        options = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
            if parts.query
            else ()
        )
    except ValueError as error:
        raise LinkAddressError(f"{text}: {error}; known forms: {_FORMS}") from error
    scheme = parts.scheme
    if scheme not in _OPTIONS:
        raise LinkAddressError(f"'{text}' names no link to a board; known forms: {_FORMS}")
    unknown = sorted(set(options) - _OPTIONS[scheme])
    if unknown:
        known = ", ".join(sorted(_OPTIONS[scheme])) or "none"
        raise LinkAddressError(f"{text}: unknown option '{unknown[0]}'; known: {known}")
    host = parts.hostname or ""
    needs_path = scheme in ("serial", "store")
    if needs_path and (host or not parts.path.startswith("/")):
        raise LinkAddressError(f"{text}: give a path with three slashes, as in: {_FORMS}")
    if not needs_path and not host:
        raise LinkAddressError(f"{text}: names no host; known forms: {_FORMS}")
    # a host that begins with '-' would be an option to ssh
    if scheme == "ssh" and (host.startswith("-") or (parts.username or "").startswith("-")):
        raise LinkAddressError(f"{text}: a host or user cannot begin with '-'")
    return LinkAddress(text, scheme, host, port, parts.username or "", unquote(parts.path), options)
