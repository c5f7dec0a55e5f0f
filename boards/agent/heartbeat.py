"""Signs of life from the agent's loop, for a watchdog that would start it anew without them."""

from __future__ import annotations

import time
from collections.abc import Callable


class Heartbeat:
    """Feeds a watchdog three times in the time that it waits."""

    def __init__(self, watchdog_s: float, feed: Callable[[], None]) -> None:
        """Begin to count.

        Args:
            watchdog_s: how long the watchdog waits; 0: there is none.
            feed: gives the sign.
        """
        self._interval_s = watchdog_s / 3
        self._feed = feed
        self._fed_at = time.monotonic()

    def beat(self) -> float | None:
        """Feed when it is time. Returns seconds until it is again; None: never."""
        if not self._interval_s:
            return None
        now = time.monotonic()
        if now >= self._fed_at + self._interval_s:
            self._fed_at = now
            self._feed()
        return self._fed_at + self._interval_s - now
