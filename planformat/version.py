"""Magic number, format version and feature bits of PLAN files (SPEC.md sections 2 and 8)."""

from __future__ import annotations

MAGIC = b"\x89EPLAN\r\n"

VERSION_MAJOR = 1
VERSION_MINOR = 1

KNOWN_REQUIRED_FEATURES = 0
"""Must-understand feature bits that this reader knows; versions 1.0 and 1.1 define none."""
