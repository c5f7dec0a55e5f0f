"""What the agent tells systemd: datagrams to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class ServiceManager:
    """The service manager that started the agent; without one nothing is told to anybody."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        self._path = environment.get("NOTIFY_SOCKET", "")
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        is_watched = usec.isdigit() and (not pid or pid == str(os.getpid()))
        # three signs of life in the time after which the manager would start the agent anew
        self._interval_s = int(usec) / 3e6 if is_watched else None
        self._told_at = time.monotonic()

    def ready(self) -> None:
        """All lines are open."""
        self._tell("READY=1")

    def alive(self) -> float | None:
        """Say that the loop turns, when it is time. Returns seconds until it is again, if ever."""
        if self._interval_s is None:
            return None
        now = time.monotonic()
        if now >= self._told_at + self._interval_s:
            self._told_at = now
            self._tell("WATCHDOG=1")
        return self._told_at + self._interval_s - now

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(text.encode(), address)
        except OSError as error:
            log.warning("systemd cannot be told '%s': %s", text, error)
