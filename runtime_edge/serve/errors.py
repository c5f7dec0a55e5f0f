"""Errors of the daemon.

ServeError
├── ConfigError           serve.toml or an argument cannot be used
├── MemoryBudgetError     a plan does not fit into the memory that is left
└── RequestError          a request cannot be answered; has the HTTP status
    └── OverloadError     503 with Retry-After: refused now, may be taken later
"""

from __future__ import annotations

import enum


class ServeError(Exception):
    """Any reason why the daemon cannot start or a request cannot be answered."""


class ConfigError(ServeError):
    """The configuration cannot be used."""


class MemoryBudgetError(ServeError):
    """A plan does not fit into the memory that is left."""


class RequestError(ServeError):
    """A request cannot be answered.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, text: str) -> None:
        """An error with an HTTP status."""
        super().__init__(text)
        self.status = status


class Refusal(enum.Enum):
    """Why a request was not served; `value` is the label in the metrics."""

    QUEUE_REQUESTS = "queue_requests"
    QUEUE_BYTES = "queue_bytes"
    QUEUE_TIME = "queue_time"
    DEADLINE = "deadline"
    EXPIRED = "expired"
    NOT_READY = "not_ready"
    DRAINING = "draining"


class OverloadError(RequestError):
    """Refused now.

    Attributes:
        reason: which bound was met.
        retry_after_s: whole seconds after which the same request may be taken.
    """

    def __init__(self, reason: Refusal, text: str, retry_after_s: int = 1) -> None:
        """A 503."""
        super().__init__(503, text)
        self.reason = reason
        self.retry_after_s = max(1, retry_after_s)
