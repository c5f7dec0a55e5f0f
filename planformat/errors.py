"""Errors of the plan format.

PlanError
├── PlanFormatError        the bytes break SPEC.md: section, byte offset and values are named
├── PlanStrippedError      the weights were taken out and must be put in again
├── PlanVersionError       a major version or a must-understand feature that this reader lacks
├── PlanSignatureError     missing, wrong or untrusted signature
└── FingerprintMismatchError   the device is not the one that the plan was built for
"""

from __future__ import annotations


class PlanError(Exception):
    """Any reason why a plan cannot be read, written or used."""


class PlanFormatError(PlanError):
    """The bytes do not follow SPEC.md."""


class PlanStrippedError(PlanError):
    """The plan's weights were taken out; it runs when they are put in again."""


class PlanVersionError(PlanError):
    """The plan needs a newer reader."""


class PlanSignatureError(PlanError):
    """The signature is missing, wrong, or made with another key."""


class FingerprintMismatchError(PlanError):
    """The device differs from the plan's fingerprint; the text lists every field."""
