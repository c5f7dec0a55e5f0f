"""Magic number, format version and feature bits of PLAN files (SPEC.md sections 2 and 8)."""

from __future__ import annotations

MAGIC = b"\x89EPLAN\r\n"

VERSION_MAJOR = 1
VERSION_MINOR = 2
"""The newest minor version that this reader knows."""

COMPLETE_MINOR = 1
"""The minor version of plans with all of their weights: the lowest that has all they use."""

FEATURE_STRIPPED = 1
"""Must-understand bit of a plan whose weights were taken out (since 1.2)."""

KNOWN_REQUIRED_FEATURES = FEATURE_STRIPPED
"""Must-understand feature bits that this reader knows; versions 1.0 and 1.1 define none."""
